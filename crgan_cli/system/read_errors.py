"""Which errors of reading say something about the content of a file."""

import errno

NOT_DAMAGE = {
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ENOENT, errno.EACCES,
    errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM,
}  # fmt: skip


def may_be_whole(error: BaseException) -> bool:
    """Whether an error leaves open what a file holds: the next time it may be read."""
    return isinstance(error, MemoryError) or getattr(error, "errno", None) in NOT_DAMAGE
