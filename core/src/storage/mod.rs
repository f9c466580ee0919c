//! The log of one partition, and the directories logs live in.
