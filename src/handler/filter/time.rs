//! Logs the time that each message takes.

use std::rc::Rc;
use std::time::Instant;

use super::{Filter, Step};
use crate::handler::{Failure, Incoming, Outcome, log_line};

/// Writes one line to the log target `con-log` for each finished message: route, message of the
/// handler, start and milliseconds.
///
/// As a global filter it writes the same line; Pomelo writes the whole client message without its
/// route.
///
/// Source: `filters/handler/time.js`
pub struct Time(());

/// Logs the time that each message takes. Pomelo: `pomelo.filters.time()`.
pub fn time() -> Time {
    Time(())
}

impl Filter for Time {
    type Mark = Instant;

    fn before(&self, incoming: &Rc<Incoming>) -> Step<Result<Instant, Outcome<'static>>> {
        Step::Ready(Ok(incoming.session.context().now()))
    }

    fn after(
        &self,
        began: Instant,
        error: Option<Failure>,
        incoming: &Rc<Incoming>,
    ) -> Option<Failure> {
        log_line::console(incoming, began);
        error
    }
}

#[cfg(all(test, feature = "runtime"))]
mod tests {
    use std::io::Write;
    use std::sync::mpsc::{Sender, channel};

    use super::super::fake::{World, answer};
    use super::*;

    struct Lines(Sender<Vec<u8>>);

    impl Write for &Lines {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.send(line.to_vec());
            Ok(line.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_message_is_a_line_of_the_console_log() {
        let (lines, written) = channel();
        let lines = std::sync::Arc::new(Lines(lines));
        let subscriber = tracing_subscriber::fmt()
            .without_time()
            .with_ansi(false)
            .with_writer(lines)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let world = World::new(|filters| filters.filter(time()));
            world.send(1, 1);
            world.pass(12);
            world.finish(1, "{}");
            assert_eq!(world.answers(), [answer(1, "{}")]);
        });
        let written: Vec<u8> = written.iter().flatten().collect();
        assert_eq!(
            String::from_utf8(written).unwrap(),
            concat!(
                r#" INFO con-log: {"route":"connector.h.wait","args":{"n":1,"#,
                r#""__route__":"connector.h.wait"},"time":"11230542","timeUsed":12}"#,
                "\n"
            )
        );
    }
}
