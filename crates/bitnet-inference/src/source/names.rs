//! The names that GGUF has for the tensors of Hugging Face checkpoints.

use std::borrow::Cow;

/// What is in a model once.
const ONCE: [(&str, &str); 3] = [
    ("embed_tokens.weight", "token_embd.weight"),
    ("norm.weight", "output_norm.weight"),
    ("lm_head.weight", "output.weight"),
];

/// The linear layers of a block.
const LINEARS: [(&str, &str); 7] = [
    ("self_attn.q_proj.", "attn_q"),
    ("self_attn.k_proj.", "attn_k"),
    ("self_attn.v_proj.", "attn_v"),
    ("self_attn.o_proj.", "attn_output"),
    ("mlp.gate_proj.", "ffn_gate"),
    ("mlp.up_proj.", "ffn_up"),
    ("mlp.down_proj.", "ffn_down"),
];

/// What a linear layer has.
const PARTS: [(&str, &str); 5] = [
    ("weight", ".weight"),
    ("weight_scale", ".scale"),
    ("bias", ".bias"),
    // A norm of its own before a layer.
    ("rms_norm.weight", "_norm_in.weight"),
    ("input_norm.weight", "_norm_in.weight"),
];

/// The norms of a block.
const NORMS: [(&str, &str); 9] = [
    ("input_layernorm.weight", "attn_norm.weight"),
    ("post_attention_layernorm.weight", "ffn_norm.weight"),
    ("self_attn.attn_sub_norm.weight", "attn_sub_norm.weight"),
    ("mlp.ffn_sub_norm.weight", "ffn_sub_norm.weight"),
    // What 1bitLLM calls these two.
    ("self_attn.inner_attn_ln.weight", "attn_sub_norm.weight"),
    ("mlp.ffn_layernorm.weight", "ffn_sub_norm.weight"),
    ("self_attn.q_norm.weight", "attn_q_norm.weight"),
    ("self_attn.k_norm.weight", "attn_k_norm.weight"),
    ("post_feedforward_layernorm.weight", "post_ffw_norm.weight"),
];

/// The norms of a block of Gemma 3 that mean something else there: it has one before and one behind
/// the feed-forward network.
const GEMMA: [(&str, &str); 2] = [
    ("post_attention_layernorm.weight", "post_attention_norm.weight"),
    ("pre_feedforward_layernorm.weight", "ffn_norm.weight"),
];

/// The name in GGUF of a tensor that a checkpoint of model type `kind` calls `name`; `name` itself
/// where it has none.
pub(super) fn gguf_name<'a>(kind: &str, name: &'a str) -> Cow<'a, str> {
    // Models without an output layer are saved without this.
    let inner = name.strip_prefix("model.").unwrap_or(name);
    let found = find(&ONCE, inner).map(str::to_owned).or_else(|| {
        let (block, part) = inner.strip_prefix("layers.")?.split_once('.')?;
        // As it is written there, not 07.
        let block: u32 = block.parse().ok().filter(|n: &u32| n.to_string() == block)?;
        Some(format!("blk.{block}.{}", in_block(kind, part)?))
    });
    found.map_or(Cow::Borrowed(name), Cow::Owned)
}

fn in_block(kind: &str, part: &str) -> Option<String> {
    let gemma = if kind.starts_with("gemma") { find(&GEMMA, part) } else { None };
    if let Some(norm) = gemma.or_else(|| find(&NORMS, part)) {
        return Some(norm.to_owned());
    }
    let (rest, linear) =
        LINEARS.iter().find_map(|(stored, linear)| Some((part.strip_prefix(stored)?, linear)))?;
    Some(format!("{linear}{}", find(&PARTS, rest)?))
}

fn find(table: &[(&str, &'static str)], stored: &str) -> Option<&'static str> {
    table.iter().find(|row| row.0 == stored).map(|row| row.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_have_the_names_of_gguf() {
        for (kind, stored, name) in [
            ("bitnet", "model.embed_tokens.weight", "token_embd.weight"),
            ("qwen3", "embed_tokens.weight", "token_embd.weight"),
            ("llama", "lm_head.weight", "output.weight"),
            ("bitnet", "model.norm.weight", "output_norm.weight"),
            ("bitnet", "model.layers.12.self_attn.q_proj.weight", "blk.12.attn_q.weight"),
            ("bitnet", "model.layers.0.mlp.down_proj.weight_scale", "blk.0.ffn_down.scale"),
            (
                "llama",
                "model.layers.0.self_attn.inner_attn_ln.weight",
                "blk.0.attn_sub_norm.weight",
            ),
            ("qwen3", "layers.3.mlp.up_proj.rms_norm.weight", "blk.3.ffn_up_norm_in.weight"),
            ("llama", "model.layers.1.post_attention_layernorm.weight", "blk.1.ffn_norm.weight"),
            (
                "gemma3_text",
                "model.layers.1.post_attention_layernorm.weight",
                "blk.1.post_attention_norm.weight",
            ),
            (
                "gemma3_text",
                "model.layers.1.pre_feedforward_layernorm.weight",
                "blk.1.ffn_norm.weight",
            ),
        ] {
            assert_eq!(gguf_name(kind, stored), name);
        }
    }

    #[test]
    fn other_tensors_keep_their_names() {
        for name in [
            "model.layers.1.pre_feedforward_layernorm.weight",
            "model.layers.01.mlp.up_proj.weight",
            "model.layers.-1.mlp.up_proj.weight",
            "model.layers.1.mlp.up_proj.weight.weight",
            "model.layers.1.mlp.experts.0.up_proj.weight",
            "model.layers.1",
            "rotary_emb.inv_freq",
            "",
        ] {
            assert_eq!(gguf_name("llama", name), name);
        }
    }
}
