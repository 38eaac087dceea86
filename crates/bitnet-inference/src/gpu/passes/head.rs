//! The output layer, which is enqueued when it is known what is wanted of the logits.

use bitnet_gpu::cuda::{self, Floats, Output, Shortlist, Table};

use super::super::{OnGpu, key};
use crate::Error;
use crate::arch::Model;
use crate::session::CHUNK;

/// Hidden states of outputs, and logits.
#[derive(Debug)]
pub(super) struct Head {
    /// Those of the last two passes: the host may want more of one while the device computes the other.
    hidden: [Floats; 2],
    /// Which of them are those of the last pass.
    pub(super) which: usize,
    /// Those of its logits that were wanted so far.
    pub(super) logits: Floats,
    /// Whether these are all.
    pub(super) whole: bool,
    /// Room to find the greatest logits without the others, if there is a copy of the output layer.
    shortlist: Option<Shortlist>,
}

impl Head {
    pub(super) fn new(
        on: &OnGpu,
        model: &Model,
        plan: &cuda::Plan,
        hidden: Floats,
    ) -> Result<Head, Error> {
        let (rows, cols) = (model.output().rows, model.output().cols);
        let shortlist =
            on.condensed.is_some().then(|| Shortlist::new(&on.gpu, CHUNK, (rows, cols)));
        Ok(Head {
            hidden: [hidden, plan.floats(CHUNK, cols)],
            which: 0,
            logits: plan.floats(CHUNK, rows),
            whole: false,
            shortlist: shortlist.transpose()?,
        })
    }

    /// Hidden states, of one of two passes.
    pub(super) fn hidden(&self, which: usize) -> &Floats {
        &self.hidden[which]
    }

    /// What logits of the last pass come from.
    pub(super) fn output<'a>(&'a self, on: &'a OnGpu, model: &Model) -> Output<'a> {
        let condensed = on.condensed.as_ref().zip(self.shortlist.as_ref());
        let (x, logits) = (self.hidden(self.which), &self.logits);
        Output { table: on.table(model), condensed, x, logits }
    }
}

impl OnGpu {
    /// The output layer.
    pub(super) fn table(&self, model: &Model) -> &Table {
        &self.tables[&key(model.output())]
    }

    /// Bytes of it that were read: of its copy and so many rows, or all.
    pub(super) fn read_of_head(&self, model: &Model, rows: Option<u64>) -> u64 {
        let all = self.table(model).bytes() as u64;
        match (&self.condensed, rows) {
            (Some(copy), Some(rows)) => {
                copy.bytes() as u64 + rows * (all / model.output().rows.max(1) as u64)
            }
            _ => all,
        }
    }
}
