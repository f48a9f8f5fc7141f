//! The same as `logging`, under targets of its own.

mod logging;
