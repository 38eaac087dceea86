//! The greatest logits, found on the device: of a large vocabulary only few need to come over. What is found waits in memory of the
//! host, so that the device can go on with the next pass.

use super::args;
use super::buffers::{Floats, Scratch};
use super::condensed::Output;
use super::error::Error;
use super::gpu::{Gpu, Launches};
use super::memory::{Arena, piece};
use super::queue::Queue;
use super::step::Step;
use super::sys::{self, Event, Pinned, Region};
use crate::Draw;
use crate::draw::WORDS;

/// What is wanted of the logits of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pick<'a> {
    /// So many of the greatest.
    pub count: usize,
    /// Those of these tokens besides.
    pub also: &'a [u32],
    /// Of these tokens only: token `i` where bit `i % 32` of word `i / 32` is set.
    pub only: Option<&'a [u32]>,
    /// How the next token is drawn of them, if that is known.
    pub draw: Option<Draw>,
}

/// Room for what is asked and what is found.
#[derive(Debug)]
pub struct Picks {
    pub(crate) ask: Ask,
    pub(crate) answer: Answer,
    /// Bits of the tokens of each row, while some do not count: the beginning of the masks.
    pub(crate) only: Option<Region>,
    /// Room for them, once there were some.
    masks: Option<Region>,
    /// The token that each row goes on with.
    pub(crate) next: Region,
    rows: usize,
    /// The same in memory of the host, for the last two.
    slots: [Slot; 2],
    /// When it is found: then it is copied, while the device computes the next pass.
    ready: Event,
}

/// What is asked, on the device.
#[derive(Debug)]
pub(crate) struct Ask {
    all: Region,
    /// How many of the greatest of each row.
    pub(crate) count: Region,
    /// How a token of each row is drawn: `[rows, WORDS]`.
    pub(crate) draws: Region,
    /// Places among all logits.
    places: Region,
}

/// What is found, on the device.
#[derive(Debug)]
pub(crate) struct Answer {
    /// How many of each row.
    pub(crate) found: Region,
    /// `[rows, MOST]`, as the logits.
    pub(crate) token: Region,
    pub(crate) logit: Region,
    /// The logits at the places.
    others: Region,
}

#[derive(Debug)]
struct Slot {
    ask: Pinned,
    /// In the order of [`Answer`], then how many logits are listed, and the next tokens.
    answer: [Pinned; 6],
    done: Event,
    /// Of each row the tokens that are wanted besides.
    also: Vec<Vec<u32>>,
    /// Whether logits are listed.
    listed: bool,
}

/// Tokens and their logits.
pub type Found = Vec<(u32, f32)>;

impl Picks {
    /// Tokens of a row that there is room for.
    pub(crate) const MOST: usize = 256;

    /// For so many rows.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub fn new(gpu: &Gpu, rows: usize) -> Result<Picks, Error> {
        let (one, many) = (4 * rows, 4 * rows * Picks::MOST);
        let draws = 4 * rows * WORDS;
        let bytes = 3 * piece(one) + piece(draws) + 4 * piece(many);
        let region = gpu.allocate("the greatest logits", bytes, "take --device cpu")?;
        let all = region.part(0, piece(one) + piece(draws) + piece(many));
        let mut arena = Arena::new(region);
        let [count, how, places] = [one, draws, many].map(|bytes| arena.take(bytes));
        let ask = Ask { all, count, draws: how, places };
        let (found, next) = (arena.take(one), arena.take(one));
        let [token, logit, others] = std::array::from_fn(|_| arena.take(many));
        let slot = || -> Result<Slot, Error> {
            let room = |bytes| Pinned::new(&gpu.context(), bytes);
            let answer =
                [room(one)?, room(many)?, room(many)?, room(many)?, room(one)?, room(one)?];
            let ask = room(piece(one) + piece(draws) + many)?;
            let done = Event::new(&gpu.context())?;
            Ok(Slot { ask, answer, done, also: Vec::new(), listed: false })
        };
        let slots = [slot()?, slot()?];
        let answer = Answer { found, token, logit, others };
        Ok(Picks {
            ask,
            answer,
            only: None,
            masks: None,
            next,
            rows,
            slots,
            ready: Event::new(&gpu.context())?,
        })
    }

    /// Enqueues that what is wanted of the logits of each of the first rows of `output` is found, and comes to slot 0 or 1: of
    /// all, or of those that may be wanted, as there is a copy of the output layer or none. Gives false where that is more than there
    /// is room for: then nothing is enqueued. What was in the slot must have been collected.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`], [`Error::OutOfMemory`].
    ///
    /// # Panics
    ///
    /// If there are more rows than there is room for.
    pub fn enqueue(
        &mut self,
        (gpu, scratch): (&Gpu, &Scratch),
        (output, wanted): (&Output<'_>, &[Pick<'_>]),
        slot: usize,
        launches: &mut Launches,
    ) -> Result<bool, Error> {
        assert!(wanted.len() <= self.rows, "room for the rows");
        let places = wanted.iter().map(|pick| pick.also.len()).sum::<usize>();
        let fits = wanted.iter().all(|pick| pick.count <= Picks::MOST);
        if !fits || places > self.rows * Picks::MOST {
            return Ok(false);
        }
        let (vocabulary, rows) = (output.table.rows, wanted.len());
        self.set_masks(gpu, vocabulary, wanted)?;
        self.send(gpu, (vocabulary, wanted, places), slot)?;
        let mut queue = Queue::new(gpu, scratch);
        match output.condensed {
            Some(condensed) => queue.shortlist(output, condensed, (self, rows))?,
            None => queue.head(output.table, (output.x, rows), output.logits)?,
        }
        queue.select(self, output.listed(), rows)?;
        if places > 0 {
            let (at, to) = (self.ask.places.part(0, 4 * places), &self.answer.others);
            match output.condensed {
                Some(_) => queue.rerank_at(output, (&at, places), to)?,
                None => queue.gather(output.logits, (&at, places), to)?,
            }
        }
        launches.add_all(queue.launches());
        self.receive(gpu, output, (rows, places), slot)?;
        Ok(true)
    }

    /// Writes down what is wanted, and enqueues that the device gets it.
    fn send(
        &mut self,
        gpu: &Gpu,
        (vocabulary, wanted, places): (usize, &[Pick<'_>], usize),
        slot: usize,
    ) -> Result<(), Error> {
        let draws = piece(4 * self.rows);
        let at = draws + piece(4 * self.rows * WORDS);
        let Slot { ask, also, .. } = &mut self.slots[slot];
        also.clear();
        also.extend(wanted.iter().map(|pick| pick.also.to_vec()));
        let bytes = ask.bytes_mut();
        put(bytes, wanted.iter().map(|pick| pick.count as u32));
        let how = wanted.iter().flat_map(|pick| pick.draw.unwrap_or_else(Draw::greedy).words());
        put(&mut bytes[draws..], how);
        let tokens = wanted.iter().enumerate();
        let tokens = tokens.flat_map(|(row, pick)| pick.also.iter().map(move |id| (row, id)));
        put(&mut bytes[at..], tokens.map(|(row, id)| (row * vocabulary) as u32 + id));
        let drawn = wanted.iter().any(|pick| pick.draw.is_some());
        let bytes = match (places, drawn) {
            (0, false) => 4 * wanted.len(),
            (0, true) => draws + 4 * wanted.len() * WORDS,
            _ => at + 4 * places,
        };
        sys::enqueue_upload(gpu.compute(), &self.ask.all, ask, bytes)?;
        gpu.traffic.up(bytes);
        Ok(())
    }

    /// Enqueues that the host gets what is found.
    fn receive(
        &mut self,
        gpu: &Gpu,
        output: &Output<'_>,
        (rows, places): (usize, usize),
        slot: usize,
    ) -> Result<(), Error> {
        let Answer { found, token, logit, others } = &self.answer;
        let list = output.condensed.map(|(_, list)| &list.count);
        self.slots[slot].listed = list.is_some();
        let [to_found, to_token, to_logit, to_others, to_list, _] = &mut self.slots[slot].answer;
        let many = 4 * rows * Picks::MOST;
        self.ready.record(gpu.compute())?;
        self.ready.holds_up(gpu.copy())?;
        for (from, to, bytes) in [
            (found, to_found, 4 * rows),
            (token, to_token, many),
            (logit, to_logit, many),
            (others, to_others, 4 * places),
            (list.unwrap_or(found), to_list, if list.is_some() { 4 * rows } else { 0 }),
        ] {
            if bytes > 0 {
                sys::enqueue_download(gpu.copy(), from, to, bytes)?;
                gpu.traffic.down(bytes);
            }
        }
        self.slots[slot].done.record(gpu.copy())
    }

    /// Enqueues that each of the first rows goes on with a token that is drawn of those that were [found](Picks::enqueue) last: `step`
    /// becomes that of the next pass, and slot 0 or 1 gets the tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`].
    pub fn enqueue_next(
        &mut self,
        queue: &mut Queue<'_>,
        (rows, step): (usize, &Step),
        slot: usize,
    ) -> Result<(), Error> {
        queue.draw(self, rows)?;
        queue.advance(step, rows, &self.next)?;
        let (gpu, Slot { answer: [.., next], done, .. }) = (queue.gpu(), &mut self.slots[slot]);
        self.ready.record(gpu.compute())?;
        self.ready.holds_up(gpu.copy())?;
        sys::enqueue_download(gpu.copy(), &self.next, next, 4 * rows)?;
        gpu.traffic.down(4 * rows);
        done.record(gpu.copy())
    }

    /// Waits for what was enqueued for a slot, and gives it. Nothing where more were as great as the last one wanted than there
    /// is room for.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`], of a kernel too.
    pub fn collect(&mut self, slot: usize) -> Result<Option<Vec<Found>>, Error> {
        let Slot { answer: [found, token, logit, others, ..], done, also, .. } =
            &mut self.slots[slot];
        done.wait()?;
        let (tokens, logits) = (token.words(), logit.words());
        let mut others =
            others.words().iter().map(|bits| f32::from_bits(u32::from_le_bytes(*bits)));
        let mut all = Vec::with_capacity(also.len());
        for (row, also) in also.iter().enumerate() {
            let n = u32::from_le_bytes(found.words()[row]) as usize;
            if n > Picks::MOST {
                return Ok(None);
            }
            let range = row * Picks::MOST..row * Picks::MOST + n;
            let pair = |(token, logit): (&[u8; 4], &[u8; 4])| {
                (u32::from_le_bytes(*token), f32::from_le_bytes(*logit))
            };
            let mut here: Found =
                tokens[range.clone()].iter().zip(&logits[range]).map(pair).collect();
            for (&token, logit) in also.iter().zip(others.by_ref()) {
                if !here.iter().any(|(there, _)| *there == token) {
                    here.push((token, logit));
                }
            }
            all.push(here);
        }
        Ok(Some(all))
    }

    /// Logits of the first rows that were multiplied exactly besides those that were asked for by their tokens, as they came to a slot
    /// that has been collected. None where all were.
    #[must_use]
    pub fn listed(&self, rows: usize, slot: usize) -> Option<u64> {
        let Slot { answer: [.., list, _], listed, .. } = &self.slots[slot];
        let count = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
        listed.then(|| list.words()[..rows].iter().map(count).sum())
    }

    /// The tokens that rows go on with, as they came to a slot that has been collected.
    #[must_use]
    pub fn next(&self, rows: usize, slot: usize) -> Vec<u32> {
        let [.., next] = &self.slots[slot].answer;
        next.words()[..rows].iter().map(|token| u32::from_le_bytes(*token)).collect()
    }

    /// The masks of all rows, if one has one; of others all bits are set.
    fn set_masks(
        &mut self,
        gpu: &Gpu,
        vocabulary: usize,
        wanted: &[Pick<'_>],
    ) -> Result<(), Error> {
        self.only = None;
        if wanted.iter().all(|pick| pick.only.is_none()) {
            return Ok(());
        }
        let words = vocabulary.div_ceil(32);
        let of = |pick: &Pick<'_>| match pick.only {
            Some(only) => (0..words).map(|i| only.get(i).copied().unwrap_or(0)).collect(),
            None => vec![u32::MAX; words],
        };
        let all: Vec<u8> =
            wanted.iter().flat_map(of).flat_map(|word: u32| word.to_le_bytes()).collect();
        let masks = match self.masks.take().filter(|masks| masks.bytes() >= all.len()) {
            Some(masks) => masks,
            None => gpu.allocate("masks of tokens", 4 * words * self.rows, "take --device cpu")?,
        };
        let region = masks.part(0, all.len());
        self.masks = Some(masks);
        sys::upload(gpu.compute(), &region, &all)?;
        gpu.traffic.up(all.len());
        self.only = Some(region);
        Ok(())
    }
}

impl<'a> Output<'a> {
    /// The logits, and which of them are listed.
    fn listed(&self) -> (&'a Floats, args::Listed) {
        let none = args::Listed::default();
        (self.logits, self.condensed.map_or(none, |(_, list)| list.listed()))
    }
}

/// Writes numbers one after another.
fn put(bytes: &mut [u8], numbers: impl Iterator<Item = u32>) {
    let (words, _) = bytes.as_chunks_mut();
    words.iter_mut().zip(numbers).for_each(|(word, number)| *word = number.to_le_bytes());
}
