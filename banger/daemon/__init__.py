"""`bangerd`: what goes on while no command runs. Names are served, dead machines tidied up, forgotten ones stopped.

Nothing depends on it but names and tidiness: machines neither know nor need it, and everything that it knows it reads
from the records.
"""
