"""The pages under ``/dashboard``, one file each; ``service.web.navigation`` lists them."""
