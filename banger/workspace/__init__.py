"""A git repository of the host's in a machine, and what was changed there back on the host.

    repository   what a path on the host is, and whether it can be sent
    selection    which files go
    snapshot     what was sent, as a tree of git's: the base of everything that comes back
    history      the small .git that goes along
    shipment     files and .git as entries of a tar
    collect      the state of the guest's copy, taken without changing it and read as untrusted
    patch        that state as a patch, or as a summary for people
    apply        that state in the host's work tree, or not at all
    branch       that state as commits on a new branch of the host's
    scratch      a folder for what is made on the way
    prepare      the host's state sent again

The host's repository is only ever read, but for `apply` and `branch`. No hook of it runs.
"""
