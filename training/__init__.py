"""Networks: data, backbones, losses, the loop, export."""
