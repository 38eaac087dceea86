//! What is wrong with a model, or likely to be.

use bitnet_inference::chat::ChatError;
use bitnet_inference::{Checkpoint, Error, TernaryStatistics};

/// A scale above this is larger than training makes them: some converters write one over the scale.
const LARGEST_SCALE: f32 = 10.0;

/// What can be told without reading weights.
pub(super) fn of(checkpoint: &Checkpoint) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Err(error) = checkpoint.config() {
        warnings.push(error.to_string());
    }
    match checkpoint.check_tokenizer() {
        Ok((true, notices)) => warnings.extend(notices.iter().map(ToString::to_string)),
        Ok((false, _)) => warnings.push("there is no tokenizer: it runs token ids only".to_owned()),
        Err(error) => warnings.push(error.to_string()),
    }
    match checkpoint.chat_template(None) {
        Ok(template) => warnings.extend(template.notice().map(ToString::to_string)),
        // A model that was not trained for chats needs none.
        Err(Error::Chat(ChatError::Missing { .. })) => {}
        Err(error) => warnings.push(error.to_string()),
    }
    let [table, output] =
        ["token_embd.weight", "output.weight"].map(|name| checkpoint.tensor(name));
    if table.is_none() {
        warnings.push("there are no embeddings (token_embd.weight)".to_owned());
    }
    let bitnet = checkpoint.architecture().is_ok_and(|name| name.starts_with("bitnet-"));
    if bitnet && output.is_some() {
        let what = "there is an output layer besides the embeddings, which are the output layer of \
                    this architecture: the file is larger than it need be";
        warnings.push(what.to_owned());
    }
    warnings
}

/// What the weights of a matrix tell.
pub(super) fn of_matrix(name: &str, of: &TernaryStatistics, warnings: &mut Vec<String>) {
    let mut warn = |what: String| warnings.push(format!("{name}: {what}"));
    let [minus, zero, plus] = of.counts;
    if minus == 0 && plus == 0 {
        return warn(format!("all {zero} weights are zero: it was converted wrongly"));
    }
    if minus == 0 || zero == 0 || plus == 0 {
        let what = "one of -1, 0 and 1 does not occur: the weights may be in another layout \
                    (--read-as)";
        warn(what.to_owned());
    }
    if of.scale <= 0.0 {
        warn(format!("its scale {} is not positive: it was converted wrongly", of.scale));
    } else if of.scale > LARGEST_SCALE {
        warn(format!(
            "its scale {} is unusually large: some converters write one over the scale",
            of.scale
        ));
    }
    // A few can be: training makes some features useless.
    if (of.duplicate_rows + of.zero_rows) * 10 > of.rows {
        warn(format!(
            "{} of {} rows are zero and {} stand there twice: it may have been converted wrongly",
            of.zero_rows, of.rows, of.duplicate_rows
        ));
    }
}
