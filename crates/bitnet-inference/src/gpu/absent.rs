//! A build without GPUs: there is no value of these types.

use std::iter::Empty;
use std::sync::Arc;

use bitnet_gpu::{CudaComputeCapability, PrecisionMode};
use bitnet_kernels::format::{Encoding, FormatError};
use bitnet_kernels::shortlist::Candidate;
use bitnet_kernels::{Device, Format};

use crate::arch::Model;
use crate::backend::Row;
use crate::kv::KvCache;
use crate::receipt::GpuUsed;
use crate::{Best, Config, Error, Notice, Options, PerformanceStats, WeightsRead};

/// Why there is no GPU to compute with.
pub(crate) fn missing() -> Option<String> {
    Some("this build has no kernels for GPUs".to_owned())
}

/// GPUs to compute with.
pub(crate) fn found() -> Vec<(CudaComputeCapability, bool)> {
    Vec::new()
}

/// Who sees the residual stream behind each layer.
type See<'a> = &'a mut dyn FnMut(usize, &[f32]);

#[derive(Debug)]
pub(crate) enum GpuLinear {}

impl GpuLinear {
    pub(crate) fn set_format(&mut self, _: Format) {
        match *self {}
    }

    pub(crate) fn format(&self) -> Format {
        match *self {}
    }

    pub(crate) fn shape(&self) -> (usize, usize) {
        match *self {}
    }

    pub(crate) fn layout(&self) -> &'static str {
        match *self {}
    }

    pub(crate) fn kernels(&self, _: usize) -> [&'static str; 2] {
        match *self {}
    }

    pub(crate) fn bytes(&self) -> usize {
        match *self {}
    }
}

#[derive(Debug)]
pub(crate) enum Sink {}

#[derive(Debug)]
pub(crate) enum OnGpu {}

#[derive(Debug)]
pub(crate) enum Passes {}

#[derive(Debug)]
pub(crate) enum Lent {}

impl Sink {
    pub(crate) fn open(_: &Options, _: &Config) -> Result<Option<Sink>, Error> {
        Ok(None)
    }

    pub(crate) fn put(
        &mut self,
        _: (Encoding, &[u8]),
        _: (usize, usize),
        _: f32,
    ) -> Result<Result<GpuLinear, FormatError>, Error> {
        match *self {}
    }

    pub(crate) fn finish(self, _: &Model, _: usize) -> Result<Vec<Arc<OnGpu>>, Error> {
        match self {}
    }
}

impl OnGpu {
    pub(crate) fn device(&self) -> Device {
        match *self {}
    }

    pub(crate) fn attention(&self) -> PrecisionMode {
        match *self {}
    }

    pub(crate) fn kind(&self) -> Option<&str> {
        match *self {}
    }

    pub(crate) fn used(&self) -> GpuUsed {
        match *self {}
    }

    pub(crate) fn notices(&self) -> Empty<Notice> {
        match *self {}
    }

    pub(crate) fn passes(
        self: &Arc<OnGpu>,
        _: &Arc<Model>,
        _: (KvCache, usize, Format),
    ) -> Result<Passes, Error> {
        match **self {}
    }
}

impl Passes {
    pub(crate) fn cache(&mut self) -> &mut KvCache {
        match *self {}
    }

    pub(crate) fn blocks(&self) -> &KvCache {
        match *self {}
    }

    pub(crate) fn run(&mut self, _: (&[Row], &[usize]), _: Option<See<'_>>) -> Result<(), Error> {
        match *self {}
    }

    pub(crate) fn logits(&mut self, _: &mut Vec<f32>) -> Result<(), Error> {
        match *self {}
    }

    pub(crate) fn best(&mut self, _: &[Best<'_>]) -> Result<bool, Error> {
        match *self {}
    }

    pub(crate) fn found(&self, _: usize) -> &[Candidate] {
        match *self {}
    }

    pub(crate) fn state(&mut self, _: usize) -> Result<Vec<f32>, Error> {
        match *self {}
    }

    pub(crate) fn read(&self) -> WeightsRead {
        match *self {}
    }

    pub(crate) fn block(&self, _: u32) -> Result<Vec<u8>, Error> {
        match *self {}
    }

    pub(crate) fn set_block(&mut self, _: u32, _: &[u8]) -> Result<(), Error> {
        match *self {}
    }

    pub(crate) fn lend(&self) -> Result<Lent, Error> {
        match *self {}
    }

    pub(crate) fn borrow_blocks(&self, _: &Lent, _: &[(u32, u32)]) -> Result<(), Error> {
        match *self {}
    }

    pub(crate) fn peer_copies(&self) -> u64 {
        match *self {}
    }

    pub(crate) fn changed(&mut self, _: usize) {
        match *self {}
    }

    pub(crate) fn dropped(&self) -> u64 {
        match *self {}
    }

    pub(crate) fn performance_stats(&self) -> PerformanceStats {
        match *self {}
    }

    pub(crate) fn launches(&self) -> Vec<(&'static str, u64)> {
        match *self {}
    }
}
