//! The path of a request, traced by a real request.

/// Marks a hop with a trace event that names its file. The test `walk` collects these events and
/// compares them with the table in ARCHITECTURE.md. A release build leaves them out.
macro_rules! hop {
    () => {
        tracing::trace!(target: "hop", file = file!())
    };
}
