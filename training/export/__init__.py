"""The online backbone in the form that another library loads."""
