//! The tensors of a run.

use ort::session::SessionInputValue;
use ort::value::{Tensor, TensorRef};
use predictd_text::pipeline::Batch;
use predictd_text::signature::{GraphInput, IntegerWidth, TokenRole};

/// The tensors of a run, borrowed from the batch where their type allows it.
pub(super) fn build_inputs<'a>(
    input: &'a GraphInput,
    batch: &'a Batch,
) -> ort::Result<Vec<(std::borrow::Cow<'a, str>, SessionInputValue<'a>)>> {
    match (input, batch) {
        (GraphInput::Texts { name, rank }, Batch::Texts(texts)) => {
            let shape = if *rank == 1 { vec![texts.len()] } else { vec![texts.len(), 1] };
            Ok(vec![(name.into(), Tensor::from_string_array((shape, texts.as_slice()))?.into())])
        }
        (GraphInput::Tokens(wanted), Batch::Tokens(batch)) => wanted
            .iter()
            .map(|input| {
                let data = match input.role {
                    TokenRole::InputIds => &batch.input_ids,
                    TokenRole::AttentionMask => &batch.attention_mask,
                    TokenRole::TokenTypeIds => &batch.token_type_ids,
                    TokenRole::PositionIds => &batch.position_ids,
                };
                let shape = [batch.rows, batch.length];
                let value = match input.width {
                    IntegerWidth::Bits64 => TensorRef::from_array_view((shape, data.as_slice()))?.into(),
                    IntegerWidth::Bits32 => {
                        let narrow: Result<Vec<i32>, _> = data.iter().map(|&id| i32::try_from(id)).collect();
                        Tensor::from_array((shape, narrow.map_err(|e| ort::Error::new(e.to_string()))?))?.into()
                    }
                };
                Ok(((&input.name).into(), value))
            })
            .collect(),
        _ => Err(ort::Error::new("the batch is not of the kind the graph takes")),
    }
}
