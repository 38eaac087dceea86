//! One queue for several devices: which of them does what.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::mpsc::{Receiver, Sender};

use bitnet_kernels::op::KV_BLOCK;

use super::lend::Loan;
use super::member::{News, Order, State, Work};
use super::sequence::Sequence;
use super::{Capacity, DeviceStatus, Embeddings, Event, Finish, Request, RequestId};
use crate::session::CHUNK;
use crate::{Compiled, Engine, Error, kv};

/// What a member tells, and which.
pub(super) type Report<'a> = (usize, News<'a>);

/// Blocks more that another device must have of a prompt for them to be copied: as many as are computed in the pass that is
/// waited for.
const WORTH: usize = CHUNK / KV_BLOCK;

/// Gives work to members, each of which has a device.
#[derive(Debug)]
pub(super) struct Front<'a> {
    engine: &'a Engine,
    capacity: Capacity,
    /// Tokens that a sequence can hold.
    context: usize,
    seats: Vec<Seat<'a>>,
    reports: Receiver<Report<'a>>,
    /// What no member has room for, in the order in which it came.
    waiting: VecDeque<Work<'a>>,
    places: HashMap<RequestId, Place>,
    /// Requests that began again because a device failed.
    again: HashSet<RequestId>,
    requests: u64,
    events: Vec<Event>,
}

/// What is known of a member.
#[derive(Debug)]
pub(super) struct Seat<'a> {
    orders: Sender<Order<'a>>,
    status: DeviceStatus,
    /// Texts that it has.
    texts: usize,
    /// Blocks that nobody needs, less those of texts that it was given since it told.
    free: usize,
    /// Blocks that a text can begin with, by the chain of their tokens.
    prefixes: HashMap<u64, usize>,
    /// Whether its thread is no more.
    gone: bool,
}

/// Which member has a request.
#[derive(Debug)]
struct Place {
    seat: usize,
    is_text: bool,
    /// Who looks for blocks to lend for it, and has it meanwhile.
    lender: Option<usize>,
    /// Blocks that are lent for it, and by whom, until they are copied.
    loan: Option<(usize, Vec<u32>)>,
    cancelled: bool,
}

impl<'a> Seat<'a> {
    pub(super) fn new(orders: Sender<Order<'a>>, status: DeviceStatus) -> Seat<'a> {
        let free = status.blocks.1;
        Seat { orders, status, texts: 0, free, prefixes: HashMap::new(), gone: false }
    }

    /// Whether it would begin with the work at once.
    fn has_room(&self, work: &Work<'_>, sequences: usize) -> bool {
        match work {
            Work::Text(_) if self.texts == 0 => true,
            Work::Text(text) => self.texts < sequences && blocks(text) <= self.free,
            // It is done between the passes of others.
            Work::Embeddings(_) => true,
        }
    }

    /// Blocks of these tokens that it has in its cache.
    fn cached(&self, tokens: &[u32]) -> usize {
        let mut chain = 0;
        let blocks = tokens.as_chunks::<KV_BLOCK>().0.iter();
        blocks
            .take_while(|tokens| {
                chain = kv::chain(chain, tokens);
                self.prefixes.contains_key(&chain)
            })
            .count()
    }

    fn update(&mut self, state: State) {
        let State { running, waiting, blocks, changes, from_peers } = state;
        for change in changes {
            let count = self.prefixes.entry(change.chain).or_default();
            *count = if change.came { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                self.prefixes.remove(&change.chain);
            }
        }
        self.free = blocks.1 - blocks.0;
        let status = &mut self.status;
        (status.running, status.waiting, status.blocks) = (running, waiting, blocks);
        status.from_peers = from_peers;
        status.steps += 1;
    }
}

/// Blocks of a text and of one token more.
fn blocks(text: &Sequence<'_>) -> usize {
    text.tokens.len() / KV_BLOCK + 1
}

impl<'a> Front<'a> {
    pub(super) fn new(
        (engine, capacity, context): (&'a Engine, Capacity, usize),
        seats: Vec<Seat<'a>>,
        reports: Receiver<Report<'a>>,
    ) -> Front<'a> {
        Front {
            engine,
            capacity,
            context,
            seats,
            reports,
            waiting: VecDeque::new(),
            places: HashMap::new(),
            again: HashSet::new(),
            requests: 0,
            events: Vec::new(),
        }
    }

    pub(super) fn context(&self) -> usize {
        self.context
    }

    pub(super) fn statuses(&self) -> impl Iterator<Item = &DeviceStatus> {
        self.seats.iter().map(|seat| &seat.status)
    }

    /// Requests that run, and requests that wait, here or with a member.
    pub(super) fn load(&self) -> (usize, usize) {
        let running = self.statuses().map(|status| status.running).sum();
        (running, (self.waiting.len() + self.places.len()).saturating_sub(running))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.places.is_empty() && self.events.is_empty()
    }

    fn next_id(&mut self) -> RequestId {
        self.requests += 1;
        RequestId(self.requests - 1)
    }

    pub(super) fn submit(
        &mut self,
        request: Request,
        constraint: Option<Compiled>,
    ) -> Result<RequestId, Error> {
        let id = self.next_id();
        let text = Sequence::new(self.engine, id, (request, constraint), self.context)?;
        self.waiting.push_back(Work::Text(Box::new(text)));
        self.assign();
        Ok(id)
    }

    pub(super) fn embed(&mut self, texts: Vec<Vec<u32>>) -> Result<RequestId, Error> {
        self.engine.can_embed()?;
        let id = self.next_id();
        self.waiting.push_back(Work::Embeddings(Embeddings::new(id, texts)));
        self.assign();
        Ok(id)
    }

    pub(super) fn cancel(&mut self, id: RequestId) {
        if let Some(at) = self.waiting.iter().position(|work| work.id() == id) {
            self.waiting.remove(at).into_iter().for_each(|work| self.drop_work(work));
        } else if let Some(place) = self.places.get_mut(&id) {
            let Place { seat, is_text, lender, .. } = *place;
            place.cancelled = true;
            if lender.is_none() {
                self.send(seat, Order::Cancel(id));
            }
            // Of a text there will be an end.
            if !is_text {
                self.vacate(id);
            }
        }
    }

    /// Ends work that was cancelled.
    fn drop_work(&mut self, work: Work<'a>) {
        if let Work::Text(mut text) = work {
            text.end(Finish::Cancelled, &mut self.events);
        }
    }

    /// Waits for a member that has something to tell, if any has something to do.
    pub(super) fn wait(&mut self) {
        if self.events.is_empty()
            && !self.is_idle()
            && let Ok((seat, news)) = self.reports.recv()
        {
            self.note(seat, news);
        }
    }

    /// What came of the members' work since this was asked before.
    pub(super) fn events(&mut self) -> Vec<Event> {
        while let Ok((seat, news)) = self.reports.try_recv() {
            self.note(seat, news);
        }
        self.assign();
        std::mem::take(&mut self.events)
    }

    fn note(&mut self, from: usize, news: News<'a>) {
        match news {
            News::Step { events, state } => {
                self.seats[from].update(state);
                self.tell(from, events);
            }
            News::Lent { to, work, loan } => self.lent(to, work, loan),
            News::Copied { from: lender, blocks, copied } => {
                self.seats[from].status.copied += (copied * KV_BLOCK) as u64;
                let mut loans = self.places.values_mut().map(|place| &mut place.loan);
                let is_it = |loan: &mut (usize, Vec<u32>)| loan.0 == lender && loan.1 == blocks;
                // Of a request that has ended it was taken back before.
                if loans.any(|loan| loan.take_if(is_it).is_some()) {
                    self.send(lender, Order::TakeBack(blocks));
                }
            }
            News::Failed { error, events, work, state } => {
                self.seats[from].update(state);
                self.tell(from, events);
                let what = format!("{}: {error}", self.seats[from].status.device);
                self.seats[from].status.failed = Some(what.clone());
                work.into_iter().for_each(|work| self.begin_again(work, &what));
            }
            News::Gone => {
                let what = format!("{}: its thread has ended", self.seats[from].status.device);
                self.seats[from].gone = true;
                self.seats[from].status.failed = Some(what.clone());
                let has = |place: &Place| place.seat == from || place.lender == Some(from);
                let lost = self.places.iter().filter(|(_, place)| has(place));
                for id in lost.map(|(id, _)| *id).collect::<Vec<_>>() {
                    self.fail(id, &what);
                }
            }
        }
    }

    /// Passes on what came of a step.
    fn tell(&mut self, from: usize, events: Vec<Event>) {
        for event in &events {
            match event {
                Event::Token(_) => {
                    self.seats[from].status.tokens += 1;
                    // It computes, whatever was before.
                    self.seats[from].status.failed = None;
                }
                Event::End(end) => self.vacate(end.id),
                Event::Embeddings { id, .. } => {
                    self.seats[from].status.failed = None;
                    self.vacate(*id);
                }
                Event::Failed { id, .. } => self.vacate(*id),
            }
        }
        self.events.extend(events);
    }

    /// Passes work on to the member that copies blocks for it.
    fn lent(&mut self, to: usize, work: Work<'a>, loan: Option<Loan>) {
        let id = work.id();
        match self.places.get_mut(&id) {
            Some(place) if !place.cancelled => {
                place.lender = None;
                place.loan = loan.as_ref().map(|Loan { from, blocks, .. }| (*from, blocks.clone()));
                self.send(to, Order::Do(work, loan));
                return;
            }
            Some(_) => {
                self.vacate(id);
                self.drop_work(work);
            }
            // It has failed, and that has been told.
            None => {}
        }
        if let Some(Loan { from, blocks, .. }) = loan {
            self.send(from, Order::TakeBack(blocks));
        }
    }

    /// Has another member do the work of one that failed, once, if there is another.
    fn begin_again(&mut self, work: Work<'a>, what: &str) {
        let id = work.id();
        // Of embeddings that were cancelled nothing is known any more.
        if self.places.get(&id).is_none_or(|place| place.cancelled) {
            self.vacate(id);
            self.drop_work(work);
        } else if self.seats.iter().any(|seat| seat.status.failed.is_none())
            && self.again.insert(id)
        {
            self.vacate(id);
            let at = self.waiting.partition_point(|other| other.id() < id);
            self.waiting.insert(at, work);
        } else {
            self.fail(id, what);
        }
    }

    fn fail(&mut self, id: RequestId, what: &str) {
        self.vacate(id);
        self.events.push(Event::Failed { id, error: Error::Pass { what: what.to_owned() } });
    }

    /// A request is with no member any more.
    fn vacate(&mut self, id: RequestId) {
        if let Some(place) = self.places.remove(&id) {
            let seat = &mut self.seats[place.seat];
            seat.texts -= usize::from(place.is_text);
            seat.status.requests -= 1;
            if let Some((lender, blocks)) = place.loan {
                self.send(lender, Order::TakeBack(blocks));
            }
        }
    }

    fn send(&mut self, to: usize, order: Order<'a>) {
        let Err(lost) = self.seats[to].orders.send(order) else { return };
        if let Order::Do(work, _) | Order::Lend { work, .. } = lost.0 {
            let what = format!("{}: its thread has ended", self.seats[to].status.device);
            self.fail(work.id(), &what);
        }
    }

    /// Gives what waits to members that have room, in order.
    fn assign(&mut self) {
        if self.seats.iter().all(|seat| seat.gone) {
            for work in std::mem::take(&mut self.waiting) {
                self.fail(work.id(), "the threads of all devices have ended");
            }
        }
        while let Some((at, to, lender)) = self.next()
            && let Some(work) = self.waiting.remove(at)
        {
            self.give(to, lender, work);
        }
    }

    /// What comes next of all that waits, who is to do it, and who is to lend it blocks. Embeddings wait for no text.
    fn next(&self) -> Option<(usize, usize, Option<usize>)> {
        let mut a_text_waits = false;
        for (at, work) in self.waiting.iter().enumerate() {
            let is_text = matches!(work, Work::Text(_));
            if is_text && a_text_waits {
                continue;
            }
            match self.choose(work) {
                Some((to, lender)) => return Some((at, to, lender)),
                None => a_text_waits |= is_text,
            }
        }
        None
    }

    /// The member that is to do the work, and one that is to lend it blocks: the one that has most of its beginning, if it has
    /// room; else the one with the least to do.
    fn choose(&self, work: &Work<'a>) -> Option<(usize, Option<usize>)> {
        let sound = self.seats.iter().any(|seat| seat.status.failed.is_none());
        let able = |seat: &Seat<'a>| !seat.gone && (seat.status.failed.is_none() || !sound);
        let sequences = self.capacity.sequences;
        let has_room = |&(_, seat): &(usize, &Seat<'a>)| seat.has_room(work, sequences);
        let all = || self.seats.iter().enumerate().filter(|(_, seat)| able(seat));
        if !all().any(|seat| has_room(&seat)) {
            return None;
        }
        let cached = |seat: &Seat<'a>| match work {
            // The last token is run in any case.
            Work::Text(text) => seat.cached(&text.tokens[..text.tokens.len() - 1]),
            Work::Embeddings(_) => 0,
        };
        let (most, best) = all().map(|(i, seat)| (cached(seat), i)).max_by_key(|(n, _)| *n)?;
        let idlest = |most: usize| {
            let with_room =
                all().filter(has_room).filter(|(_, seat)| most == 0 || cached(seat) == most);
            with_room
                .min_by_key(|(_, seat)| (seat.status.requests, seat.status.blocks.1 - seat.free))
        };
        if let Some((to, _)) = idlest(most) {
            return Some((to, None));
        }
        let (to, seat) = idlest(0)?;
        Some((to, (most >= cached(seat) + WORTH).then_some(best)))
    }

    fn give(&mut self, to: usize, lender: Option<usize>, work: Work<'a>) {
        let is_text = matches!(work, Work::Text(_));
        let place = Place { seat: to, is_text, lender, loan: None, cancelled: false };
        self.places.insert(work.id(), place);
        let seat = &mut self.seats[to];
        seat.status.requests += 1;
        seat.texts += usize::from(is_text);
        match (lender, work) {
            (Some(lender), Work::Text(text)) => {
                let tokens = text.tokens[..text.tokens.len() - 1].to_vec();
                self.send(lender, Order::Lend { tokens, to, work: Work::Text(text) });
            }
            (_, work) => {
                if let Work::Text(text) = &work {
                    seat.free = seat.free.saturating_sub(blocks(text));
                }
                self.send(to, Order::Do(work, None));
            }
        }
    }
}
