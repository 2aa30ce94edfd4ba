//! The path of a request, told by the request itself.

/// Marks a hop: a trace event with the file it stands in. The test `walk` collects them and holds
/// them against the table in ARCHITECTURE.md. A release build leaves them out.
macro_rules! hop {
    () => {
        tracing::trace!(target: "hop", file = file!())
    };
}
