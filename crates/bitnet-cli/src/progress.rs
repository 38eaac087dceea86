//! How far something is that takes its time: a bar on stderr, if that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for so many bytes. It goes when it is dropped.
pub(crate) fn bytes(what: &'static str, total: u64) -> ProgressBar {
    // Hidden where stderr is no terminal.
    let bar = ProgressBar::new(total).with_message(what);
    let template = "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    // The template is known to be one.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
