//! The greatest logits, found on the device: of a large vocabulary only few need to come over.

use super::buffers::{Floats, Scratch};
use super::error::Error;
use super::gpu::{Gpu, Launches};
use super::queue::Queue;
use super::sys::{self, Region};

/// What is wanted of the logits of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick<'a> {
    /// So many of the greatest.
    pub count: usize,
    /// Those of these tokens besides.
    pub also: &'a [u32],
    /// Of these tokens only: token `i` where bit `i % 32` of word `i / 32` is set.
    pub only: Option<&'a [u32]>,
}

/// Room for what is found.
#[derive(Debug)]
pub struct Picks {
    pub(crate) count: Region,
    pub(crate) found: Region,
    /// `[rows, MOST]`, as the logits.
    pub(crate) token: Region,
    pub(crate) logit: Region,
    /// Bits of the tokens of each row, while some do not count.
    pub(crate) only: Option<Region>,
    rows: usize,
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
        let list = |n: usize| gpu.allocate("the greatest logits", 4 * n, "take --device cpu");
        let (count, found) = (list(rows)?, list(rows)?);
        let (token, logit) = (list(rows * Picks::MOST)?, list(rows * Picks::MOST)?);
        Ok(Picks { count, found, token, logit, only: None, rows })
    }

    /// Finds what is wanted of each of the first rows of `logits`, and waits for it. Gives nothing where that is more than
    /// there is room for.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`], [`Error::OutOfMemory`].
    ///
    /// # Panics
    ///
    /// If there are more rows than there is room for.
    pub fn find(
        &mut self,
        gpu: &Gpu,
        scratch: &Scratch,
        (logits, wanted): (&Floats, &[Pick<'_>]),
        launches: &mut Launches,
    ) -> Result<Option<Vec<Found>>, Error> {
        assert!(wanted.len() <= self.rows, "room for the rows");
        if wanted.iter().any(|pick| pick.count > Picks::MOST) {
            return Ok(None);
        }
        let counts: Vec<u32> = wanted.iter().map(|pick| pick.count as u32).collect();
        send(gpu, &self.count, &counts)?;
        self.only = self.masks(gpu, logits.cols, wanted)?;
        let mut queue = Queue::new(gpu, scratch);
        let found = self.found((gpu, &mut queue), (logits, wanted));
        launches.add_all(queue.launches());
        found
    }

    fn found(
        &self,
        (gpu, queue): (&Gpu, &mut Queue<'_>),
        (logits, wanted): (&Floats, &[Pick<'_>]),
    ) -> Result<Option<Vec<Found>>, Error> {
        queue.select(self, logits, wanted.len())?;
        let mut found = vec![Found::new(); wanted.len()];
        let numbers = receive(gpu, &self.found, wanted.len())?;
        for (row, (&n, found)) in numbers.iter().zip(&mut found).enumerate() {
            let n = n as usize;
            if n > Picks::MOST {
                return Ok(None);
            }
            let at = |list: &Region| list.part(4 * row * Picks::MOST, 4 * n);
            let tokens = receive(gpu, &at(&self.token), n)?;
            let logits = receive(gpu, &at(&self.logit), n)?;
            found.extend(tokens.into_iter().zip(logits.into_iter().map(f32::from_bits)));
        }
        self.others(gpu, queue, (logits, wanted), &mut found)?;
        Ok(Some(found))
    }

    /// The masks of all rows, if one has one; of others all bits are set.
    fn masks(
        &self,
        gpu: &Gpu,
        vocabulary: usize,
        wanted: &[Pick<'_>],
    ) -> Result<Option<Region>, Error> {
        if wanted.iter().all(|pick| pick.only.is_none()) {
            return Ok(None);
        }
        let words = vocabulary.div_ceil(32);
        let of = |pick: &Pick<'_>| match pick.only {
            Some(only) => (0..words).map(|i| only.get(i).copied().unwrap_or(0)).collect(),
            None => vec![u32::MAX; words],
        };
        let all: Vec<u32> = wanted.iter().flat_map(of).collect();
        let region = gpu.allocate("masks of tokens", 4 * all.len(), "take --device cpu")?;
        send(gpu, &region, &all)?;
        Ok(Some(region))
    }

    /// Adds the logits of the tokens that are wanted besides.
    fn others(
        &self,
        gpu: &Gpu,
        queue: &mut Queue<'_>,
        (logits, wanted): (&Floats, &[Pick<'_>]),
        found: &mut [Found],
    ) -> Result<(), Error> {
        let places: Vec<u32> = wanted
            .iter()
            .enumerate()
            .flat_map(|(row, pick)| {
                pick.also.iter().map(move |token| (row * logits.cols) as u32 + token)
            })
            .collect();
        if places.is_empty() {
            return Ok(());
        }
        let region = gpu.allocate("logits of tokens", 8 * places.len(), "take --device cpu")?;
        let (at, to) =
            (region.part(0, 4 * places.len()), region.part(4 * places.len(), 4 * places.len()));
        send(gpu, &at, &places)?;
        queue.gather(logits, (&at, places.len()), &to)?;
        let mut values = receive(gpu, &to, places.len())?.into_iter().map(f32::from_bits);
        for (pick, found) in wanted.iter().zip(found) {
            for (&token, logit) in pick.also.iter().zip(values.by_ref()) {
                if !found.iter().any(|(there, _)| *there == token) {
                    found.push((token, logit));
                }
            }
        }
        Ok(())
    }
}

fn send(gpu: &Gpu, to: &Region, words: &[u32]) -> Result<(), Error> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    sys::upload(gpu.compute(), to, &bytes)?;
    gpu.traffic.up(bytes.len());
    Ok(())
}

fn receive(gpu: &Gpu, from: &Region, n: usize) -> Result<Vec<u32>, Error> {
    let mut bytes = vec![0; 4 * n];
    sys::download(gpu.compute(), from, &mut bytes)?;
    gpu.traffic.down(bytes.len());
    Ok(bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
}
