"""Access tokens that the local Hub knows (and one that it does not)."""

WRITE, READ = "hf_writeTokenOfTheTests0123456789", "hf_readTokenOfTheTests01234567890"
FOREIGN, INVALID = "hf_foreignTokenOfTheTests0123456", "hf_invalidTokenOfTheTests0123456"
TOKENS = {WRITE: ("user", "write"), READ: ("user", "read"), FOREIGN: ("somebody", "write")}
