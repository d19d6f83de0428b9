//! Lock, detaching, OS signals, the node's own diagnostics.
