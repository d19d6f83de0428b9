//! Calls and answers in lymph messages.
