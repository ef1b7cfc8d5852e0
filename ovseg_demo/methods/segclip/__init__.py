"""SegCLIP: regions that form themselves around learned centres, named by words; trained from captions alone."""
