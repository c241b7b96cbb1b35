"""Work on all items of a gallery, in a process of its own: reports and label audits."""
