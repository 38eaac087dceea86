//! Figures of each device.

use std::sync::{Mutex, PoisonError};

use bitnet_inference::DeviceStatus;

use crate::metrics::{Counter, Page};
use crate::worker::Pulse;

/// Figures of a device.
#[derive(Debug)]
pub(crate) struct Device {
    name: String,
    running: Counter,
    waiting: Counter,
    /// Blocks of keys and values: in use, and all.
    blocks_used: Counter,
    blocks: Counter,
    generated_tokens: Counter,
    /// Tokens whose keys and values came from other devices.
    copied_tokens: Counter,
    steps: Counter,
    pub(crate) pulse: Pulse,
    failed: Mutex<Option<String>>,
}

impl Device {
    pub(crate) fn new(status: &DeviceStatus) -> Device {
        let device = Device {
            name: status.device.to_string(),
            running: Counter::default(),
            waiting: Counter::default(),
            blocks_used: Counter::default(),
            blocks: Counter::default(),
            generated_tokens: Counter::default(),
            copied_tokens: Counter::default(),
            steps: Counter::default(),
            pulse: Pulse::new(),
            failed: Mutex::default(),
        };
        device.set(status);
        device
    }

    /// Takes what is so now.
    pub(crate) fn set(&self, status: &DeviceStatus) {
        self.running.set(status.running);
        self.waiting.set(status.waiting);
        self.blocks_used.set(status.blocks.0);
        self.blocks.set(status.blocks.1);
        self.generated_tokens.set(status.tokens as usize);
        self.copied_tokens.set(status.copied as usize);
        if status.requests == 0 {
            self.pulse.rest();
        } else if self.pulse.is_resting() || self.steps.get() != status.steps {
            self.pulse.beat();
        }
        self.steps.set(status.steps as usize);
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = status.failed.clone();
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Blocks of keys and values: in use, and all.
    pub(crate) fn blocks(&self) -> (u64, u64) {
        (self.blocks_used.get(), self.blocks.get())
    }

    /// Why it failed, if it did and has not computed since.
    pub(crate) fn failed(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Figures of each of some devices, as text.
pub(crate) fn families(page: &mut Page, devices: &[Device]) {
    let ratio = |(used, all): (u64, u64)| if all == 0 { 0.0 } else { used as f64 / all as f64 };
    /// Its name, kind and meaning, and the figure of a device.
    type Family<'a> = (&'a str, &'a str, &'a str, &'a dyn Fn(&Device) -> f64);
    let all: [Family<'_>; 6] = [
        (
            "device_requests_running",
            "gauge",
            "Requests that are being generated on a device.",
            &|device| device.running.get() as f64,
        ),
        (
            "device_requests_waiting",
            "gauge",
            "Requests of a device that wait for blocks of keys and values.",
            &|device| device.waiting.get() as f64,
        ),
        (
            "device_kv_cache_usage_ratio",
            "gauge",
            "Share of the blocks of keys and values of a device in use, from 0 to 1.",
            &|device| ratio(device.blocks()),
        ),
        ("device_generation_tokens_total", "counter", "Tokens generated on a device.", &|device| {
            device.generated_tokens.get() as f64
        }),
        (
            "device_copied_tokens_total",
            "counter",
            "Tokens whose keys and values a device has from another.",
            &|device| device.copied_tokens.get() as f64,
        ),
        (
            "device_failed",
            "gauge",
            "1 where a device failed and has not computed since.",
            &|device| f64::from(u8::from(device.failed().is_some())),
        ),
    ];
    for (name, kind, help, figure) in all {
        page.family((name, None), kind, help, |page, name| {
            for device in devices {
                page.line(name, &format!("device=\"{}\"", device.name), figure(device));
            }
        });
    }
}
