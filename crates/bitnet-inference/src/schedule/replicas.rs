//! Requests on all devices of an engine: one queue, and a thread for each device.
//!
//! A request goes to the device that has most of its prompt in its cache, if there is room, and else to the one with the
//! least to do; what that one lacks of the prompt it copies, if it is worth it. What a device that fails has begun begins
//! again on another one: what comes out for a request depends on the request alone.

use std::sync::mpsc;
use std::thread::{self, Scope};

use bitnet_kernels::Device;

use super::front::{Front, Report, Seat};
use super::member::{Member, News};
use super::{Capacity, Event, Request, RequestId, Scheduler};
use crate::{Compiled, Engine, Error};

/// How it is with a device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceStatus {
    /// Which.
    pub device: Device,
    /// Requests that it has.
    pub requests: usize,
    /// Those of them that run.
    pub running: usize,
    /// Those of them that wait there, for blocks as a rule.
    pub waiting: usize,
    /// Blocks of 16 tokens of keys and values: those that requests hold, and all.
    pub blocks: (usize, usize),
    /// Steps so far.
    pub steps: u64,
    /// Tokens generated so far.
    pub tokens: u64,
    /// Tokens whose keys and values were copied from other devices so far.
    pub copied: u64,
    /// Copies from the memory of other devices so far, which did not go through the host.
    pub from_peers: u64,
    /// Why it failed, if it did and has not computed since.
    pub failed: Option<String>,
}

impl DeviceStatus {
    fn new(device: Device, blocks: (usize, usize)) -> DeviceStatus {
        DeviceStatus {
            device,
            requests: 0,
            running: 0,
            waiting: 0,
            blocks,
            steps: 0,
            tokens: 0,
            copied: 0,
            from_peers: 0,
            failed: None,
        }
    }
}

/// Runs requests on all [devices](Engine::devices) of an engine. With one it is a [`Scheduler`], which computes where it is
/// called; with several each has a thread.
///
/// ```no_run
/// use bitnet_inference::{Capacity, Engine, Event, Options, Replicas, Request, Sampling};
/// use bitnet_kernels::Device;
///
/// let (device, beside) = (Device::Cuda(0), vec![Device::Cuda(1)]);
/// let engine = Engine::open("model.gguf", &Options { device, beside, ..Options::default() })?;
/// let prompt = engine.encode("Once upon a time")?;
/// std::thread::scope(|scope| {
///     let mut replicas = Replicas::new(scope, &engine, Capacity::default(), || {})?;
///     for _ in 0..64 {
///         replicas.submit(Request::new(prompt.clone(), Sampling::default(), 64))?;
///     }
///     while !replicas.is_idle() {
///         replicas.wait();
///         for event in replicas.step()? {
///             if let Event::Token(token) = event {
///                 println!("{:?}: {}", token.id, token.text);
///             }
///         }
///     }
///     Ok::<(), bitnet_inference::Error>(())
/// })?;
/// # Ok::<(), bitnet_inference::Error>(())
/// ```
#[derive(Debug)]
pub struct Replicas<'a>(Kind<'a>);

#[derive(Debug)]
enum Kind<'a> {
    One { scheduler: Box<Scheduler<'a>>, status: Box<DeviceStatus> },
    Many(Box<Front<'a>>),
}

impl<'a> Replicas<'a> {
    /// Each device gets as much to do at once as the capacity says. `wake` is called in the thread of a device whenever
    /// there is something for [`Replicas::step`], of several devices.
    ///
    /// # Errors
    ///
    /// As [`Scheduler::new`], and [`Error::Threads`].
    pub fn new<'scope>(
        scope: &'scope Scope<'scope, 'a>,
        engine: &'a Engine,
        capacity: Capacity,
        wake: impl Fn() + Clone + Send + 'scope,
    ) -> Result<Replicas<'a>, Error> {
        let devices = engine.devices();
        let mut schedulers = (0..devices.len())
            .map(|replica| Scheduler::on(engine, replica, capacity))
            .collect::<Result<Vec<_>, _>>()?;
        if let ([device], 1) = (&devices[..], schedulers.len())
            && let Some(scheduler) = schedulers.pop()
        {
            let status = Box::new(DeviceStatus::new(*device, scheduler.blocks()));
            return Ok(Replicas(Kind::One { scheduler: Box::new(scheduler), status }));
        }
        let context = schedulers.iter().map(Scheduler::context).min().unwrap_or(0);
        let threads = devices.len();
        let (reporter, reports) = mpsc::channel::<Report<'a>>();
        let mut seats = Vec::with_capacity(threads);
        for (device, scheduler) in devices.into_iter().zip(schedulers) {
            let (orders, receiver) = mpsc::channel();
            seats.push(Seat::new(orders, DeviceStatus::new(device, scheduler.blocks())));
            let (replica, reporter, wake) = (scheduler.replica(), reporter.clone(), wake.clone());
            let tell = move |news: News<'a>| {
                // Who is not there any more need not know.
                let _ = reporter.send((replica, news));
                wake();
            };
            thread::Builder::new()
                .name(format!("bitnet-{device}"))
                .spawn_scoped(scope, move || Member { scheduler, tell }.work(&receiver))
                .map_err(|source| Error::Threads { threads, source })?;
        }
        let front = Front::new((engine, capacity, context), seats, reports);
        Ok(Replicas(Kind::Many(Box::new(front))))
    }

    /// Whether devices have threads of their own, and compute while nobody calls [`Replicas::step`].
    #[must_use]
    pub fn has_threads(&self) -> bool {
        matches!(self.0, Kind::Many(_))
    }

    /// Tokens that a sequence can hold.
    #[must_use]
    pub fn context(&self) -> usize {
        match &self.0 {
            Kind::One { scheduler, .. } => scheduler.context(),
            Kind::Many(front) => front.context(),
        }
    }

    /// Requests that run, and requests that wait.
    #[must_use]
    pub fn load(&self) -> (usize, usize) {
        match &self.0 {
            Kind::One { scheduler, .. } => scheduler.load(),
            Kind::Many(front) => front.load(),
        }
    }

    /// How it is with each device, in the order of the engine.
    #[must_use]
    pub fn devices(&self) -> Vec<DeviceStatus> {
        match &self.0 {
            Kind::One { scheduler, status } => {
                let (running, waiting) = scheduler.load();
                let (blocks, requests) = (scheduler.blocks(), running + waiting);
                vec![DeviceStatus { requests, running, waiting, blocks, ..(**status).clone() }]
            }
            Kind::Many(front) => front.statuses().cloned().collect(),
        }
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        match &self.0 {
            Kind::One { scheduler, .. } => scheduler.is_idle(),
            Kind::Many(front) => front.is_idle(),
        }
    }

    /// As [`Scheduler::submit`].
    ///
    /// # Errors
    ///
    /// As [`Scheduler::submit`].
    pub fn submit(&mut self, request: Request) -> Result<RequestId, Error> {
        self.submit_with(request, None)
    }

    /// As [`Scheduler::submit_with`].
    ///
    /// # Errors
    ///
    /// As [`Scheduler::submit`].
    pub fn submit_with(
        &mut self,
        request: Request,
        constraint: Option<Compiled>,
    ) -> Result<RequestId, Error> {
        match &mut self.0 {
            Kind::One { scheduler, .. } => scheduler.submit_with(request, constraint),
            Kind::Many(front) => front.submit(request, constraint),
        }
    }

    /// As [`Scheduler::embed`].
    ///
    /// # Errors
    ///
    /// As [`Scheduler::embed`].
    pub fn embed(&mut self, texts: Vec<Vec<u32>>) -> Result<RequestId, Error> {
        match &mut self.0 {
            Kind::One { scheduler, .. } => scheduler.embed(texts),
            Kind::Many(front) => front.embed(texts),
        }
    }

    /// As [`Scheduler::cancel`].
    pub fn cancel(&mut self, id: RequestId) {
        match &mut self.0 {
            Kind::One { scheduler, .. } => scheduler.cancel(id),
            Kind::Many(front) => front.cancel(id),
        }
    }

    /// Waits until [`Replicas::step`] has something to tell or to do. Returns at once where there are no threads.
    pub fn wait(&mut self) {
        if let Kind::Many(front) = &mut self.0 {
            front.wait();
        }
    }

    /// What came of the devices' work since this was called before, which waits for nothing; with one device as
    /// [`Scheduler::step`].
    ///
    /// # Errors
    ///
    /// As [`Scheduler::step`], with one device. With several its requests fail one by one.
    pub fn step(&mut self) -> Result<Vec<Event>, Error> {
        match &mut self.0 {
            Kind::One { scheduler, status } => {
                let events = scheduler.step()?;
                status.steps += 1;
                let is_token = |event: &&Event| matches!(event, Event::Token(_));
                status.tokens += events.iter().filter(is_token).count() as u64;
                Ok(events)
            }
            Kind::Many(front) => Ok(front.events()),
        }
    }
}
