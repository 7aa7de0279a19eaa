//! Signatures of the graphs of fake backends. Benchmarks and fuzz targets include this file too.

use predictd::text::signature::{FixedAxes, GraphInput, IntegerWidth, ScoreKind, Signature, TokenInput, TokenRole};

/// A graph that gives `width` logits for each row of these token inputs, or for each text where it has no token inputs.
pub(crate) fn logits_signature(token_inputs: &[(&str, TokenRole)], width: usize) -> Signature {
    let tokens = token_inputs.iter().map(|&(name, role)| TokenInput {
        name: name.to_owned(),
        role,
        width: IntegerWidth::Bits64,
    });
    let input = match token_inputs {
        [] => GraphInput::Texts { name: "text".to_owned(), rank: 1 },
        _ => GraphInput::Tokens(tokens.collect()),
    };
    Signature {
        input,
        fixed_axes: FixedAxes::default(),
        output_name: "logits".to_owned(),
        score_kind: ScoreKind::Logits,
        per_token: false,
        applied_activation: None,
        embedding_rows: None,
        width,
        batch_dependent: false,
        labels: None,
        is_multi_label: false,
    }
}
