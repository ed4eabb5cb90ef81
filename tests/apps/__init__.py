"""The programs as people use them: the command line, supervisord, up."""
