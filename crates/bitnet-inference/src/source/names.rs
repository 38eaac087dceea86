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

/// Whether a tensor is the weights of a linear layer of a block, by its name in GGUF.
pub(super) fn is_linear(name: &str) -> bool {
    let parts = name.strip_prefix("blk.").and_then(|name| name.split_once('.'));
    let linear = parts.and_then(|(_, part)| part.strip_suffix(".weight"));
    linear.is_some_and(|linear| LINEARS.iter().any(|(_, known)| *known == linear))
}

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

/// The name in a checkpoint of transformers of what GGUF calls `name` in an architecture; nothing where
/// it has none.
pub(crate) fn hf_name(architecture: &str, name: &str) -> Option<String> {
    if let Some((stored, _)) = ONCE.iter().find(|(_, known)| *known == name) {
        let outer = if *stored == "lm_head.weight" { "" } else { "model." };
        return Some(format!("{outer}{stored}"));
    }
    let (block, part) = name.strip_prefix("blk.")?.split_once('.')?;
    let reverse = |table: &[(&'static str, &str)]| {
        table.iter().find(|(_, known)| *known == part).map(|(stored, _)| (*stored).to_owned())
    };
    let norm = match architecture {
        "gemma3" => reverse(&GEMMA).or_else(|| reverse(&NORMS)),
        // The names of 1bitLLM come behind the others.
        "bitnet" => {
            NORMS.iter().rev().find(|(_, known)| *known == part).map(|row| row.0.to_owned())
        }
        _ => reverse(&NORMS),
    };
    let linear = || {
        let of = |(stored, known): &(&str, &str)| {
            let rest = part.strip_prefix(known)?;
            let (last, _) = PARTS.iter().find(|(_, known)| *known == rest)?;
            Some(format!("{stored}{last}"))
        };
        LINEARS.iter().find_map(of)
    };
    Some(format!("model.layers.{block}.{}", norm.or_else(linear)?))
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
    fn names_are_found_again() {
        for (architecture, kind) in [
            ("bitnet-b1.58", "bitnet"),
            ("bitnet", "llama"),
            ("llama", "llama"),
            ("qwen3", "qwen3"),
            ("gemma3", "gemma3_text"),
        ] {
            for name in [
                "token_embd.weight",
                "output_norm.weight",
                "output.weight",
                "blk.3.attn_norm.weight",
                "blk.0.ffn_norm.weight",
                "blk.0.attn_sub_norm.weight",
                "blk.0.ffn_sub_norm.weight",
                "blk.12.attn_k_norm.weight",
                "blk.1.attn_q.weight",
                "blk.1.ffn_down_norm_in.weight",
                "blk.1.attn_output.scale",
            ] {
                let stored = hf_name(architecture, name).unwrap();
                assert_eq!(gguf_name(kind, &stored), name, "{architecture}: {stored}");
            }
        }
        assert_eq!(hf_name("llama", "rope_freqs.weight"), None);
        assert_eq!(hf_name("llama", "blk.0.attn_rot_embd"), None);
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
