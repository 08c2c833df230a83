//! One shard: sockets in, events to the hand-off, answers out. Shard thread.
