"""A network beside another one: the teacher that it followed, the older one whose gallery it keeps."""
