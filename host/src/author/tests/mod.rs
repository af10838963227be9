//! The commands, as they are told of on the command line.
