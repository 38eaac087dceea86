//! A build that opens no libraries of C++ engines.

use serde::Serialize;

use crate::model;

/// What is to be said of them.
#[derive(Debug, Serialize)]
pub(super) struct Libraries {
    reason: &'static str,
}

impl Libraries {
    pub(super) fn find(_: &model::Library) -> Libraries {
        Libraries { reason: "this build opens no libraries; build with --features ffi" }
    }

    /// For people.
    pub(super) fn text(&self) -> Vec<String> {
        vec![self.reason.to_owned()]
    }
}
