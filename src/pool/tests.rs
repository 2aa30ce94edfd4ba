use std::future::Future;
use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Waker};

use futures_lite::future::block_on;

use super::*;

/// Longer than any test takes, even on a busy machine.
const HANG_GUARD: Duration = Duration::from_secs(60);

/// A server that numbers its connections.
#[derive(Default)]
struct Server {
    connections: AtomicUsize,
    away: AtomicBool,
}

impl Server {
    fn connect(&self) -> std::result::Result<usize, String> {
        if self.away.load(Ordering::SeqCst) {
            return Err("nobody there".into());
        }
        Ok(self.connections.fetch_add(1, Ordering::SeqCst))
    }
}

fn server() -> (Arc<Server>, Builder<usize>) {
    let server = Arc::new(Server::default());
    let builder = Pool::builder("test", {
        let server = server.clone();
        move || server.connect()
    });
    (server, builder)
}

/// Keeps the only thread of a pool busy until the sender goes; the job has `with` until then.
fn occupy(pool: &Pool<usize>, with: impl Send + 'static) -> Sender<()> {
    let (hold, held) = bounded::<()>(0);
    let (begin, begun) = bounded(1);
    let mut job = pin!(pool.run(move |_| {
        let _ = begin.send(());
        let _ = held.recv();
        drop(with);
    }));
    let pending = job.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(pending.is_pending());
    begun.recv_timeout(HANG_GUARD).unwrap();
    hold
}

/// Polls, and drops.
fn poll_once<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn counted(counter: Counter) -> u64 {
    crate::metrics::of_process().get(counter)
}

/// Polls a condition: the threads do not report their steps.
fn wait_until(so: impl Fn() -> bool) {
    for _ in 0..HANG_GUARD.as_millis() / 5 {
        if so() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("the condition did not become true");
}

#[test]
fn a_handle_goes_to_all_shards() {
    fn goes<T: Clone + Send + Sync>(_: &T) {}
    // A connection that must not leave its thread is good enough.
    let pool = Pool::builder("test", || Ok::<_, String>(std::rc::Rc::new(1)));
    let pool = pool.start().unwrap();
    goes(&pool);
    assert_eq!(block_on(pool.run(|connection| **connection)), Ok(1));
}

#[test]
fn each_thread_has_a_connection_and_a_name_of_its_own() {
    let (server, builder) = server();
    let pool = builder.threads(3).start().unwrap();
    let meet = Arc::new(std::sync::Barrier::new(3));
    let jobs = (0..3).map(|_| {
        let (pool, meet) = (pool.clone(), meet.clone());
        thread::Builder::new().spawn(move || {
            block_on(pool.run(move |connection| {
                meet.wait();
                (*connection, thread::current().name().map(str::to_owned))
            }))
        })
    });
    let jobs: Vec<_> = jobs.collect();
    let seen = jobs
        .into_iter()
        .map(|job| job.unwrap().join().unwrap().unwrap());
    let (mut connections, mut names): (Vec<_>, Vec<_>) = seen.unzip();
    connections.sort_unstable();
    names.sort_unstable();
    assert_eq!(connections, [0, 1, 2]);
    let expected = ["test-0", "test-1", "test-2"].map(|name| Some(name.to_owned()));
    assert_eq!(names, expected);
    assert_eq!(server.connections.load(Ordering::SeqCst), 3);
}

#[test]
fn one_job_more_than_may_wait_is_refused_at_once_and_counted() {
    let (_, builder) = server();
    let pool = builder.threads(1).queue(2).start().unwrap();
    let hold = occupy(&pool, ());
    let mut first = pin!(pool.run(|_| 1));
    let mut second = pin!(pool.run(|_| 2));
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(first.as_mut().poll(cx).is_pending());
    assert!(second.as_mut().poll(cx).is_pending());
    assert_eq!(pool.waiting(), 2);
    let before = counted(Counter::PoolFull);
    assert_eq!(
        poll_once(pool.run(|_| 3)),
        Poll::Ready(Err(PoolError::Full))
    );
    assert!(counted(Counter::PoolFull) > before);
    drop(hold);
    assert_eq!(block_on(first), Ok(1));
    assert_eq!(block_on(second), Ok(2));
}

#[test]
fn a_job_that_panics_is_an_error_and_its_connection_is_made_anew() {
    let (_, builder) = server();
    let pool = builder.threads(1).start().unwrap();
    let before = counted(Counter::PoolPanics);
    assert_eq!(block_on(pool.run(|connection| *connection)), Ok(0));
    let panicked = block_on(pool.run(|_| -> u32 { panic!("boom in a job") }));
    assert_eq!(panicked, Err(PoolError::Panicked));
    assert_eq!(block_on(pool.run(|connection| *connection)), Ok(1));
    assert!(counted(Counter::PoolPanics) > before);
}

#[test]
fn a_connection_that_is_not_valid_is_made_anew_before_the_job() {
    let (_, builder) = server();
    let builder = builder.threads(1).is_valid(|connection| match *connection {
        0 => false,
        1 => panic!("boom in the question"),
        _ => true,
    });
    let pool = builder.start().unwrap();
    // The connection made for a job is not checked, because it is new.
    for expected in [1, 2, 2] {
        assert_eq!(block_on(pool.run(|connection| *connection)), Ok(expected));
    }
}

#[test]
fn jobs_fail_while_the_server_is_away_and_work_when_it_is_back() {
    let (server, builder) = server();
    let lost = Arc::new(AtomicBool::new(false));
    let builder = builder.threads(2).is_valid({
        let lost = lost.clone();
        move |_| !lost.load(Ordering::SeqCst)
    });
    let pool = builder.start().unwrap();
    assert!(block_on(pool.run(|connection| *connection)).is_ok());
    server.away.store(true, Ordering::SeqCst);
    lost.store(true, Ordering::SeqCst);
    let before = counted(Counter::PoolFailed);
    for _ in 0..20 {
        let failed = block_on(pool.run(|connection| *connection));
        assert_eq!(failed, Err(PoolError::NoConnection("nobody there".into())));
    }
    assert!(counted(Counter::PoolFailed) >= before + 20);
    lost.store(false, Ordering::SeqCst);
    server.away.store(false, Ordering::SeqCst);
    wait_until(|| block_on(pool.run(|connection| *connection)).is_ok());
}

#[test]
fn a_thread_without_a_connection_leaves_the_jobs_to_those_with_one() {
    let taken = AtomicBool::new(false);
    let pool = Pool::builder("test", move || match taken.swap(true, Ordering::SeqCst) {
        false => Ok(()),
        true => Err("one connection for each client"),
    });
    let pool = pool.threads(4).start().unwrap();
    // Until the one thread connects, the others fail jobs, and each may have taken one more.
    wait_until(|| block_on(pool.run(|_| ())).is_ok());
    let jobs = (0..1000).map(|_| block_on(pool.run(|_| ())));
    let failed = jobs.filter(|job| job.is_err()).count();
    assert!(failed <= 3, "{failed} jobs failed");
}

#[test]
fn a_function_that_panics_when_it_connects_is_an_error_of_the_jobs() {
    let pool = Pool::<()>::builder("test", || -> std::result::Result<(), String> {
        panic!("boom in connect")
    });
    let pool = pool.threads(1).start().unwrap();
    let text = "the function that connects panicked".into();
    assert_eq!(
        block_on(pool.run(|_| ())),
        Err(PoolError::NoConnection(text))
    );
}

#[test]
fn a_job_that_nobody_awaits_is_not_run_unless_it_has_begun() {
    let (_, builder) = server();
    let pool = builder.threads(1).start().unwrap();
    let (ran, runs) = bounded(10);
    let begun = ran.clone();
    let hold = occupy(&pool, ());
    let before = counted(Counter::PoolDropped);
    let dropped = pool.run(move |_| ran.send("dropped").unwrap());
    assert!(poll_once(dropped).is_pending());
    let never_awaited = begun.clone();
    drop(pool.run(move |_| never_awaited.send("never awaited").unwrap()));
    drop(hold);
    assert!(block_on(pool.run(move |_| begun.send("awaited").unwrap())).is_ok());
    assert_eq!(runs.try_iter().collect::<Vec<_>>(), ["awaited"]);
    assert!(counted(Counter::PoolDropped) > before);
}

#[test]
fn the_last_handle_ends_the_threads() {
    let (_, builder) = server();
    let alive = Arc::new(());
    let in_pool = alive.clone();
    let pool = builder
        .threads(3)
        .is_valid(move |_| Arc::strong_count(&in_pool) > 0);
    let pool = pool.start().unwrap();
    let other = pool.clone();
    drop(pool);
    assert_eq!(block_on(other.run(|_| 1)), Ok(1));
    assert_eq!(Arc::strong_count(&alive), 2);
    drop(other);
    assert_eq!(Arc::strong_count(&alive), 1, "the threads are gone");
}

#[test]
fn a_pool_without_a_connection_ends_at_once() {
    let (server, builder) = server();
    server.away.store(true, Ordering::SeqCst);
    let pool = builder.threads(2).start().unwrap();
    assert!(block_on(pool.run(|_| 1)).is_err());
    drop(pool);
    assert_eq!(Arc::strong_count(&server), 1, "the threads are gone");
}

#[test]
fn a_job_that_does_not_end_does_not_hold_up_the_last_handle() {
    let (_, builder) = server();
    let pool = builder.threads(1).start().unwrap();
    let hold = occupy(&pool, ());
    let before = std::time::SystemTime::now();
    drop(pool);
    assert!(before.elapsed().unwrap() < HANG_GUARD);
    drop(hold);
}

#[test]
fn a_job_may_have_the_last_handle() {
    let (server, builder) = server();
    let pool = builder.threads(1).start().unwrap();
    let hold = occupy(&pool, pool.clone());
    drop(pool);
    drop(hold);
    wait_until(|| Arc::strong_count(&server) == 1);
}

#[test]
fn numbers_out_of_range_are_refused_with_the_expected_range() {
    for (builder, expected) in [
        (
            server().1.threads(0),
            "pool \"test\": threads: 0; expected 1 to 256",
        ),
        (
            server().1.threads(257),
            "pool \"test\": threads: 257; expected 1 to 256",
        ),
        (
            server().1.queue(0),
            "pool \"test\": queue: 0; expected 1 to 16384",
        ),
    ] {
        assert_eq!(
            builder.start().unwrap_err(),
            Error::Handlers(expected.into())
        );
    }
    for name in ["", "-", "a\0"] {
        let pool = Pool::builder(name, || Ok::<_, String>(())).start();
        assert!(matches!(pool, Err(Error::Handlers(_))), "{name:?}");
    }
}

#[test]
fn many_tasks_of_many_threads_get_each_their_own_answer() {
    let (_, builder) = server();
    let pool = builder.threads(4).queue(4).start().unwrap();
    let callers = (0..8).map(|caller| {
        let pool = pool.clone();
        thread::Builder::new().spawn(move || {
            for n in 0..2000 {
                let job = loop {
                    match block_on(pool.run(move |_| (caller, n))) {
                        Err(PoolError::Full) => thread::yield_now(),
                        other => break other,
                    }
                };
                assert_eq!(job, Ok((caller, n)));
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    callers
        .into_iter()
        .for_each(|caller| caller.unwrap().join().unwrap());
}
