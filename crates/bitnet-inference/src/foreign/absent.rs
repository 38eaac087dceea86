//! A build without libraries of C++ engines: there is no value of these types.

use std::sync::Arc;

use crate::backend::Row;
use crate::source::Checkpoint;
use crate::{Error, Options};

#[derive(Debug)]
pub(crate) enum Library {}

#[derive(Debug)]
pub(crate) enum Foreign {}

impl Library {
    pub(crate) fn open(
        _: &Options,
        _: &Checkpoint,
        _: (usize, usize, usize),
    ) -> Result<Option<Library>, Error> {
        Ok(None)
    }

    pub(crate) fn file(&self) -> (String, &str) {
        match *self {}
    }

    pub(crate) fn session(self: &Arc<Library>, _: usize) -> Result<Foreign, Error> {
        match **self {}
    }
}

impl Foreign {
    pub(crate) fn run(&mut self, _: &[Row], _: &[usize], _: &mut Vec<f32>) -> Result<(), Error> {
        match *self {}
    }

    pub(crate) fn calls(&self) -> (&'static str, u64) {
        match *self {}
    }
}
