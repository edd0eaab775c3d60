//! Calls that are made again, after longer and longer pauses, where that may help.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::{FlowerError, Malformed, MayPass};
use crate::proto::{self, Body};
use crate::transport::{Call, Transport};

/// The pauses between attempts: twice as long each time, up to a limit.
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    /// Begins with `first`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { next: first, most }
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.next.min(self.most);
        self.next = pause * 2;
        Some(pause)
    }
}

/// How often to ask whether something has happened: after a twentieth of the time it has taken so far, so that waiting
/// takes at most 5 % longer than what is waited for, and a long wait costs few calls. Where a call takes long, after
/// twice as long: whoever waits leaves most of a busy SuperLink to those who bring something.
#[derive(Clone, Debug)]
pub struct Polling {
    since: Instant,
    call: Duration,
    most: Duration,
}

impl Polling {
    const LEAST: Duration = Duration::from_millis(10);

    /// Waits from now on, with pauses of at most `most`.
    pub fn new(most: Duration) -> Self {
        Self { since: Instant::now(), call: Duration::ZERO, most }
    }

    /// It has happened; the wait for the next begins.
    pub fn restart(&mut self) {
        self.since = Instant::now();
    }

    /// For how long nothing has happened.
    pub fn waited(&self) -> Duration {
        self.since.elapsed()
    }

    /// Makes the call that asks, and remembers how long it took.
    pub fn ask<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let answer = call();
        self.call = start.elapsed();
        answer
    }

    /// The pause before the next call.
    pub fn pause(&self) -> Duration {
        (self.waited() / 20).max(2 * self.call).clamp(Self::LEAST, self.most)
    }
}

/// A SuperLink, with the patience to wait for it.
pub struct Link {
    transport: Box<dyn Transport>,
    patience: Duration,
    stop: Arc<AtomicBool>,
    tell: Option<Tell>,
    /// Whether it was told that the SuperLink is away.
    away: AtomicBool,
}

/// Where it is told that the SuperLink is away, and that it is back.
type Tell = Box<dyn Fn(&str) + Send + Sync>;

/// An absence that is over sooner is not told.
const UNNOTICED: Duration = Duration::from_secs(2);

impl Link {
    /// Calls are made again for `patience` where the SuperLink cannot be reached or is overcharged, and a few times where it
    /// stumbles over them, unless `stop` is set.
    pub fn new(transport: Box<dyn Transport>, patience: Duration, stop: Arc<AtomicBool>) -> Self {
        Self { transport, patience, stop, tell: None, away: AtomicBool::new(false) }
    }

    /// The same, and `tell` hears when the SuperLink is away, and when it is back.
    #[must_use]
    pub fn telling(mut self, tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.tell = Some(Box::new(tell));
        self
    }

    fn tell_of(&self, result: Result<(), &FlowerError>, waited: Duration) {
        let Some(tell) = &self.tell else { return };
        let away = |error: &FlowerError| error.may_pass() == MayPass::WhenItIsBack;
        match result {
            Err(error) if away(error) => {
                if waited > UNNOTICED && !self.away.swap(true, Ordering::Relaxed) {
                    tell(&format!("{error}; waiting for it"));
                }
            }
            _ => {
                if self.away.swap(false, Ordering::Relaxed) {
                    tell("the SuperLink is back");
                }
            }
        }
    }

    /// Whether the caller wants to end.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sleeps, but wakes up when the caller wants to end.
    pub fn sleep(&self, pause: Duration) {
        let end = Instant::now() + pause;
        while !self.is_stopped() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }

    /// Makes a call, with fresh `headers` in each attempt.
    ///
    /// # Errors
    /// What the last attempt failed with, or [`FlowerError::Interrupted`].
    pub fn call<R: Body>(
        &self,
        path: &str,
        headers: &dyn Fn() -> Vec<(&'static str, String)>,
        request: &impl prost::Message,
    ) -> Result<R, FlowerError> {
        self.attempts(self.patience, || self.once(path, headers, request))
    }

    /// The same for what is not worth waiting for: a heartbeat, of which another one follows, or a confirmation, without
    /// which a few objects are kept for nothing.
    ///
    /// # Errors
    /// As [`Link::call`].
    pub fn call_briefly<R: Body>(
        &self,
        path: &str,
        headers: &dyn Fn() -> Vec<(&'static str, String)>,
        request: &impl prost::Message,
    ) -> Result<R, FlowerError> {
        self.attempts(self.patience.min(STUMBLES), || self.once(path, headers, request))
    }

    /// The same without a second attempt.
    ///
    /// # Errors
    /// What it failed with.
    pub fn once<R: Body>(
        &self,
        path: &str,
        headers: &dyn Fn() -> Vec<(&'static str, String)>,
        request: &impl prost::Message,
    ) -> Result<R, FlowerError> {
        let headers = headers();
        let body = proto::encode(request);
        let reply = self.transport.call(Call { path, headers: &headers, body: &body })?;
        if reply.status != 200 {
            let detail: String = String::from_utf8_lossy(&reply.body).chars().take(300).collect();
            return Err(FlowerError::Status { call: path.to_owned(), status: reply.status, detail });
        }
        R::decode(reply.body.as_slice()).map_err(|error| {
            Malformed::Body { what: "the SuperLink's answer", why: format!("{path}: {error}") }.into()
        })
    }

    fn attempts<T>(
        &self,
        patience: Duration,
        mut attempt: impl FnMut() -> Result<T, FlowerError>,
    ) -> Result<T, FlowerError> {
        let start = Instant::now();
        for pause in Backoff::new(Duration::from_millis(50), Duration::from_secs(5)) {
            let result = attempt();
            self.tell_of(result.as_ref().map(drop), start.elapsed());
            match result {
                Err(error) if start.elapsed() + pause < limit(&error, patience) => {
                    self.sleep(pause);
                    if self.is_stopped() {
                        return Err(FlowerError::Interrupted);
                    }
                }
                result => return result,
            }
        }
        unreachable!("pauses do not end")
    }
}

/// For how long a call is made again that the SuperLink stumbles over.
const STUMBLES: Duration = Duration::from_secs(3);

/// For how long a call that failed with `error` is made again.
fn limit(error: &FlowerError, patience: Duration) -> Duration {
    match error.may_pass() {
        MayPass::Never => Duration::ZERO,
        MayPass::Soon => patience.min(STUMBLES),
        MayPass::WhenItIsBack => patience,
    }
}

/// Does `work` on every item, on several threads, and returns the first error in the order of items.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, FlowerError> + Sync,
) -> Result<Vec<R>, FlowerError> {
    // Few items: one is called for while another is worked on.
    let threads = match items.len() {
        0..3 => return items.iter().map(work).collect(),
        3..8 => 2,
        _ => 4,
    };
    let next = std::sync::atomic::AtomicUsize::new(0);
    let mut done: Vec<(usize, Result<R, FlowerError>)> = std::thread::scope(|scope| {
        let worker = || {
            let mut out = Vec::new();
            while let Some(item) = {
                let i = next.fetch_add(1, Ordering::Relaxed);
                items.get(i).map(|item| (i, item))
            } {
                let result = work(item.1);
                let failed = result.is_err();
                out.push((item.0, result));
                if failed {
                    // The others need not begin anything.
                    next.store(items.len(), Ordering::Relaxed);
                }
            }
            out
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("work does not panic")).collect()
    });
    done.sort_by_key(|&(i, _)| i);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::transport::Reply;

    #[test]
    fn pauses_double_up_to_a_limit() {
        let pauses = Backoff::new(Duration::from_millis(50), Duration::from_millis(300));
        assert_eq!(pauses.take(5).map(|p| p.as_millis()).collect::<Vec<_>>(), [50, 100, 200, 300, 300]);
    }

    #[test]
    fn a_slow_answer_makes_a_long_pause() {
        let mut polling = Polling::new(Duration::from_millis(40));
        assert_eq!(polling.pause(), Polling::LEAST);
        polling.ask(|| std::thread::sleep(Duration::from_millis(5)));
        assert!((10..40).contains(&polling.pause().as_millis()), "{:?}", polling.pause());
        polling.ask(|| std::thread::sleep(Duration::from_millis(20)));
        assert_eq!(polling.pause(), Duration::from_millis(40));
    }

    /// Answers with these statuses, one after the other; 0 stands for no answer.
    struct Script(Mutex<Vec<u16>>);

    impl Transport for Script {
        fn call(&self, _: Call<'_>) -> Result<Reply, FlowerError> {
            match self.0.lock().unwrap().remove(0) {
                0 => Err(FlowerError::Unreachable("gone".into())),
                status => Ok(Reply { status, body: Vec::new() }),
            }
        }
    }

    fn run(script: &[u16], patience: Duration) -> Result<proto::Empty, FlowerError> {
        let script = Box::new(Script(Mutex::new(script.to_vec())));
        Link::new(script, patience, Arc::default()).call("x", &Vec::new, &proto::Empty {})
    }

    #[test]
    fn what_may_pass_is_tried_again_and_the_rest_is_not() {
        run(&[0, 503, 200], Duration::from_secs(9)).unwrap();
        assert!(matches!(
            run(&[0, 403, 200], Duration::from_secs(9)),
            Err(FlowerError::Status { status: 403, .. })
        ));
        assert!(matches!(run(&[0, 0, 200], Duration::ZERO), Err(FlowerError::Unreachable(_))));
    }

    /// A run that the SuperLink has forgotten is answered with 500 for ever.
    #[test]
    fn what_it_stumbles_over_is_given_up_however_patient_one_is() {
        let start = Instant::now();
        let mut script = vec![500; 100];
        assert!(matches!(run(&script, Duration::MAX), Err(FlowerError::Status { status: 500, .. })));
        assert!((1..9).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
        // It is back before that, and away for longer than that is worth to a heartbeat.
        script[..3].copy_from_slice(&[500, 500, 200]);
        run(&script, Duration::MAX).unwrap();
        let link = Link::new(Box::new(Script(Mutex::new(vec![0; 100]))), Duration::MAX, Arc::default());
        let result = link.call_briefly::<proto::Empty>("x", &Vec::new, &proto::Empty {});
        assert!(matches!(result, Err(FlowerError::Unreachable(_))));
    }

    #[test]
    fn an_absence_is_told_once() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let link = |script: &[u16]| {
            let told = told.clone();
            Link::new(Box::new(Script(Mutex::new(script.to_vec()))), Duration::MAX, Arc::default())
                .telling(move |line| told.lock().unwrap().push(line.to_owned()))
        };
        let call = |link: &Link| link.call::<proto::Empty>("x", &Vec::new, &proto::Empty {});
        // 50 ms, 100 ms, and so on: the sixth pause ends after more than three seconds.
        call(&link(&[0, 0, 0, 0, 0, 0, 0, 200])).unwrap();
        assert_eq!(
            *told.lock().unwrap(),
            ["cannot reach the SuperLink: gone; waiting for it", "the SuperLink is back"]
        );
        call(&link(&[0, 0, 200])).unwrap();
        assert_eq!(told.lock().unwrap().len(), 2);
    }

    #[test]
    fn all_items_are_worked_on_and_an_error_is_returned() {
        let items: Vec<usize> = (0..50).collect();
        assert_eq!(in_parallel(&items, |&i| Ok(i * 2)).unwrap()[49], 98);
        let result = in_parallel(&items, |&i| if i == 20 { Err(FlowerError::Interrupted) } else { Ok(i) });
        assert!(matches!(result, Err(FlowerError::Interrupted)));
    }
}
