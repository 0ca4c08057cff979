use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use super::*;

/// A device that does as it is told.
#[derive(Default)]
struct Fake {
    is_gone: AtomicBool,
    refuses_pin: AtomicBool,
    takes: AtomicUsize,
    connections: Arc<AtomicUsize>,
    connected_alone: AtomicUsize,
    open: Arc<AtomicUsize>,
    most_open: AtomicUsize,
    is_left: AtomicBool,
}

/// A session of the fake; it knows of which connection it is.
struct Held {
    connection: usize,
    now: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Held {
    fn sign(&self) -> Result<usize, TokenError> {
        let now = self.now.load(Ordering::SeqCst);
        if self.connection == now { Ok(now) } else { Err(TokenError::Lost("an old session".to_owned())) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Device for Fake {
    type Session = Held;

    fn connect(&self, alone: bool) -> Result<(), TokenError> {
        self.connected_alone.fetch_add(usize::from(alone), Ordering::SeqCst);
        if self.refuses_pin.load(Ordering::SeqCst) {
            self.connections.fetch_add(1, Ordering::SeqCst);
            return Err(TokenError::PinWrong("fake".to_owned()));
        }
        if self.is_gone.load(Ordering::SeqCst) {
            return Err(TokenError::Lost("gone".to_owned()));
        }
        self.connections.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn open(&self) -> Result<Held, TokenError> {
        if self.is_gone.load(Ordering::SeqCst) {
            return Err(TokenError::Lost("gone".to_owned()));
        }
        let takes = self.takes.load(Ordering::SeqCst);
        let takes_one = |open| (takes == 0 || open < takes).then_some(open + 1);
        let open = self.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, takes_one);
        let open = open.map_err(|_| TokenError::TooManySessions)? + 1;
        self.most_open.fetch_max(open, Ordering::SeqCst);
        Ok(Held { connection: self.connections.load(Ordering::SeqCst), now: self.connections.clone(), open: self.open.clone() })
    }

    fn leave(&self) {
        assert_eq!(self.open.load(Ordering::SeqCst), 0, "sessions first");
        self.is_left.store(true, Ordering::SeqCst);
    }
}

const LONG: Duration = Duration::from_secs(30);

const LIMITS: Limits = Limits { sessions: 1, patience: LONG, retry: Duration::ZERO, call: LONG, slow: LONG, rest: LONG };

fn pool_of(limits: Limits) -> Arc<Pool<Fake>> {
    Arc::new(Pool::new(Arc::default(), Hands::default(), limits))
}

fn pool(sessions: usize) -> Arc<Pool<Fake>> {
    pool_of(Limits { sessions, ..LIMITS })
}

#[test]
fn sessions_are_bounded_and_used_again() {
    let pool = pool(3);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..50 {
                    pool.run(|held| held.sign()).unwrap();
                }
            });
        }
    });
    let most = pool.device.most_open.load(Ordering::SeqCst);
    assert!((1..=3).contains(&most), "{most}");
    assert_eq!(pool.device.connections.load(Ordering::SeqCst), 1);
    let state = pool.lock();
    assert_eq!((state.lent, state.idle.len()), (0, most));
}

#[test]
fn who_waits_too_long_is_refused() {
    let pool = pool_of(Limits { patience: Duration::from_millis(20), ..LIMITS });
    let inner = pool.clone();
    let told = pool.run(move |_| inner.run(|held| held.sign()));
    assert_eq!(told, Err(TokenError::Busy));
    assert_eq!(pool.run(|held| held.sign()), Ok(1));
}

#[test]
fn a_broken_session_is_replaced_and_the_work_done_once_more() {
    let pool = pool(2);
    assert_eq!(pool.run(|held| held.sign()), Ok(1));
    // All sessions end behind our back, as after C_CloseAllSessions or a device's own time limit.
    pool.device.connections.fetch_add(1, Ordering::SeqCst);
    assert_eq!(pool.run(|held| held.sign()), Ok(3));
    assert!(pool.is_up());
    // What must not be done twice is not.
    pool.device.connections.fetch_add(1, Ordering::SeqCst);
    assert!(pool.run_once(|held| held.sign()).unwrap_err().is_loss());
    assert_eq!(pool.run(|held| held.sign()), Ok(5));
}

#[test]
fn a_lost_device_is_refused_at_once_and_comes_back_by_itself() {
    let pool = pool_of(Limits { sessions: 2, retry: Duration::from_secs(3_600), ..LIMITS });
    pool.run(|held| held.sign()).unwrap();
    pool.device.is_gone.store(true, Ordering::SeqCst);
    pool.device.connections.fetch_add(1, Ordering::SeqCst);
    assert!(matches!(pool.run(|held| held.sign()), Err(TokenError::Lost(_))));
    assert!(!pool.is_up());
    let tried = pool.device.connected_alone.load(Ordering::SeqCst);
    // Nobody asks the device again before its time, even though it is there.
    pool.device.is_gone.store(false, Ordering::SeqCst);
    assert!(matches!(pool.run(|held| held.sign()), Err(TokenError::Lost(_))));
    assert_eq!(pool.device.connected_alone.load(Ordering::SeqCst), tried);
    pool.lock().link = Link::Down { again_at: Instant::now(), why: String::new() };
    assert_eq!(pool.run(|held| held.sign()), Ok(3));
    assert!(pool.is_up());
}

#[test]
fn a_refused_pin_is_not_tried_again() {
    let pool = pool(2);
    pool.device.refuses_pin.store(true, Ordering::SeqCst);
    for _ in 0..5 {
        assert_eq!(pool.run(|held| held.sign()), Err(TokenError::PinWrong("fake".to_owned())));
    }
    assert_eq!(pool.device.connections.load(Ordering::SeqCst), 1, "one try");
}

#[test]
fn a_device_is_started_anew_only_when_nobody_uses_it() {
    let pool = pool(2);
    let inner = pool.clone();
    pool.run(move |_| inner.run(|held| held.sign())).unwrap();
    assert_eq!(pool.lock().idle.len(), 2);
    assert_eq!(pool.device.connected_alone.load(Ordering::SeqCst), 1);
    let inner = pool.clone();
    let outer = pool.run_once(move |_| {
        inner.device.connections.fetch_add(1, Ordering::SeqCst);
        inner.run(|held| held.sign())
    });
    assert_eq!(outer, Ok(3));
    assert_eq!(pool.device.connected_alone.load(Ordering::SeqCst), 1, "the outer session was in use");
    assert_eq!(pool.lock().idle.len(), 1, "the outer session is of an earlier connection and is closed");
    assert_eq!(pool.device.open.load(Ordering::SeqCst), 1);
}

/// How many sessions are had at once, one more within each, before one is refused.
fn depth(pool: &Arc<Pool<Fake>>) -> usize {
    let inner = pool.clone();
    match pool.run(move |_| Ok(depth(&inner))) {
        Ok(deeper) => deeper + 1,
        Err(TokenError::Busy) => 0,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_device_that_takes_fewer_sessions_lowers_the_bound_for_a_while() {
    let pool = pool_of(Limits { sessions: 5, patience: Duration::from_millis(20), ..LIMITS });
    let bound = |pool: &Pool<Fake>| pool.ceiling(&pool.lock());
    let takes = |number| pool.device.takes.store(number, Ordering::SeqCst);
    assert_eq!((depth(&pool), bound(&pool)), (5, 5));
    pool.lock().idle.clear();
    // Another program holds some of the device's sessions.
    takes(2);
    assert_eq!((depth(&pool), bound(&pool)), (2, 2));
    takes(1);
    pool.lock().idle.clear();
    assert_eq!((depth(&pool), bound(&pool)), (1, 1));
    // It lets go of them: that is found out by and by, without a loss.
    takes(0);
    assert_eq!((depth(&pool), bound(&pool)), (1, 1), "it is not asked each time");
    let pass = || {
        let mut state = pool.lock();
        state.lowered = state.lowered.map(|lowered| Lowered { until: Instant::now(), ..lowered });
    };
    pass();
    assert_eq!((depth(&pool), bound(&pool)), (5, 5));
    // What it still does not take is the bound again.
    pool.lock().idle.clear();
    takes(3);
    assert_eq!(depth(&pool), 3);
    pass();
    assert_eq!((depth(&pool), bound(&pool)), (3, 3));
    // Another connection is another device's.
    takes(0);
    pool.device.connections.fetch_add(1, Ordering::SeqCst);
    pool.run(|held| held.sign()).unwrap();
    assert_eq!((depth(&pool), bound(&pool)), (5, 5));
    assert_eq!(pool.lock().lent, 0);
}

#[test]
fn many_at_once_share_what_the_device_takes() {
    let pool = pool(8);
    pool.device.takes.store(2, Ordering::SeqCst);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    pool.run(|held| {
                        thread::yield_now();
                        held.sign()
                    })
                    .unwrap();
                }
            });
        }
    });
    assert_eq!((pool.device.most_open.load(Ordering::SeqCst), pool.lock().lent), (2, 0));
}

#[test]
fn a_refusal_closes_the_session_and_loses_nothing() {
    let pool = pool(2);
    let refused = || TokenError::Refused("C_Sign: OperationActive".to_owned());
    assert_eq!(pool.run(move |_| Err::<(), _>(refused())), Err(refused()));
    assert_eq!(pool.device.open.load(Ordering::SeqCst), 0);
    assert!(pool.is_up());
    assert_eq!(pool.run(|held| held.sign()), Ok(1));
}

#[test]
fn a_call_that_does_not_come_back_costs_its_connection_and_nobody_else_waits() {
    let pool = pool_of(Limits { sessions: 2, call: Duration::from_millis(30), retry: Duration::from_secs(3_600), ..LIMITS });
    pool.run(|held| held.sign()).unwrap();
    let (wake, asleep) = channel::<()>();
    let asleep = Arc::new(Mutex::new(asleep));
    let hung = pool.run(move |_| asleep.lock().unwrap().recv().map_err(|_| TokenError::Busy));
    assert_eq!(hung, Err(TokenError::Hung { seconds: 0, stuck: 1 }));
    assert!(!pool.is_up());
    assert_eq!(pool.lock().lent, 0, "it counts no more");
    // Until it is looked for again everybody is refused at once.
    assert!(matches!(pool.run(|held| held.sign()), Err(TokenError::Lost(_))));
    pool.lock().link = Link::Down { again_at: Instant::now(), why: String::new() };
    assert_eq!(pool.run(|held| held.sign()), Ok(2), "others go on with a new connection");
    assert_eq!(pool.device.connected_alone.load(Ordering::SeqCst), 1, "a call is under way: the module is not begun anew");
    assert_eq!(pool.device.open.load(Ordering::SeqCst), 2, "its session is held");
    wake.send(()).unwrap();
    while pool.hands.stuck() > 0 {
        thread::yield_now();
    }
    assert_eq!(pool.device.open.load(Ordering::SeqCst), 1, "and closed when it came back");
}

#[test]
fn a_device_that_is_waited_for_counts_as_lost_until_it_comes() {
    let pool = pool(2);
    pool.device.is_gone.store(true, Ordering::SeqCst);
    let error = pool.run(|held| held.sign()).unwrap_err();
    pool.await_device(&error);
    assert!(!pool.is_up());
    assert!(matches!(pool.run(|held| held.sign()), Err(TokenError::Lost(_))));
    pool.device.is_gone.store(false, Ordering::SeqCst);
    assert_eq!(pool.run(|held| held.sign()), Ok(1));
    assert!(pool.is_up());
}

#[test]
fn who_rests_has_nothing_open() {
    let pool = pool(2);
    assert_eq!(pool.run(|session| session.sign()), Ok(1));
    assert_eq!(pool.device.open.load(Ordering::SeqCst), 1);
    pool.rest();
    assert_eq!(pool.device.open.load(Ordering::SeqCst), 0);
    assert!(pool.device.is_left.load(Ordering::SeqCst));
}
