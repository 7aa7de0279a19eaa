"""BERT with a classification head, written for a lean ONNX graph.

Weights carry the names that Hugging Face's BertForSequenceClassification gives them, so its checkpoints load.
What differs is the shape of the exported graph, which is made for ONNX Runtime on a CPU:

- Every linear layer sees a matrix of all tokens, which exports as one `Gemm` with its bias inside.
- Its rows are the first tokens of all texts, then all second ones, and so on. The products inside attention read heads
  out of that order by stride, so query, key and value are not copied into another one first; and the tokens at the
  first positions are the first rows.
- The last layer works on the first token alone, which is all that the pooler reads. Only its keys and values need the
  others. This saves a seventh of all products for longer texts.
"""

import torch
from torch import Tensor, nn

HIDDEN, LAYERS, HEADS, INNER = 384, 6, 12, 1536
HEAD_SIZE = HIDDEN // HEADS
VOCABULARY, POSITIONS, SEGMENTS = 30522, 512, 2
LAYER_NORM_EPSILON = 1e-12
DROPOUT = 0.1


class Embeddings(nn.Module):
    """Word + position + segment, normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(VOCABULARY, HIDDEN)
        self.position_embeddings = nn.Embedding(POSITIONS, HIDDEN)
        self.token_type_embeddings = nn.Embedding(SEGMENTS, HIDDEN)
        self.LayerNorm = nn.LayerNorm(HIDDEN, LAYER_NORM_EPSILON)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        positions = self.position_embeddings.weight[:, None][:input_ids.shape[1]]
        total = self.word_embeddings(input_ids.T) + self.token_type_embeddings(token_type_ids.T) + positions
        return self.dropout(self.LayerNorm(total.reshape(-1, HIDDEN)))


class SelfAttention(nn.Module):
    """What the asking tokens of a text find in all tokens of it."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(HIDDEN, HIDDEN)
        self.key = nn.Linear(HIDDEN, HIDDEN)
        self.value = nn.Linear(HIDDEN, HIDDEN)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, asking: Tensor, tokens: Tensor, bias: Tensor, batch: int) -> Tensor:
        heads = (-1, batch, HEADS, HEAD_SIZE)
        query = self.query(asking).view(heads).permute(1, 2, 0, 3)
        key = self.key(tokens).view(heads).permute(1, 2, 3, 0)
        value = self.value(tokens).view(heads).permute(1, 2, 0, 3)
        weights = self.dropout((query @ key * HEAD_SIZE ** -0.5 + bias).softmax(dim=-1))
        return (weights @ value).permute(2, 0, 1, 3).reshape(-1, HIDDEN)


class Output(nn.Module):
    """A linear layer whose result is added to the residual and normalised."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, HIDDEN)
        self.LayerNorm = nn.LayerNorm(HIDDEN, LAYER_NORM_EPSILON)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, tokens: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(tokens)) + residual)


class Layer(nn.Module):
    """One of the six: attention, then the two-layer network with GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": SelfAttention(), "output": Output(HIDDEN)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(HIDDEN, INNER)})
        self.output = Output(INNER)

    def forward(self, tokens: Tensor, bias: Tensor, batch: int) -> Tensor:
        return self.finish(self.attention["self"](tokens, tokens, bias, batch), tokens)

    def first_tokens(self, tokens: Tensor, bias: Tensor, batch: int) -> Tensor:
        """The result for the first token of each text.

        Two positions ask, since a product with a single row is summed by another routine: the order of its sums, and
        with it the last digit of an answer, could depend on how much padding a text has.
        """
        attended = self.attention["self"](tokens[:2 * batch], tokens, bias[:, :, :2], batch)
        return self.finish(attended[:batch], tokens[:batch])

    def finish(self, attended: Tensor, tokens: Tensor) -> Tensor:
        tokens = self.attention["output"](attended, tokens)
        return self.output(nn.functional.gelu(self.intermediate["dense"](tokens)), tokens)


class Encoder(nn.Module):
    """Embeddings, six layers, and the pooler that reads the first token."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = Embeddings()
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer() for _ in range(LAYERS))})
        self.pooler = nn.ModuleDict({"dense": nn.Linear(HIDDEN, HIDDEN)})

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        batch, length = input_ids.shape
        # Added to the attention scores: nothing for a token, far below every score for padding. One row for each
        # asking token, although all are equal: to add matrices takes less time than to add a row to each row.
        padding = 1.0 - attention_mask[:, None, None, :].float()
        bias = padding * torch.full((length, 1), -1e4)
        tokens = self.embeddings(input_ids, token_type_ids)
        *layers, last = self.encoder["layer"]
        for layer in layers:
            tokens = layer(tokens, bias, batch)
        return self.pooler["dense"](last.first_tokens(tokens, bias, batch)).tanh()


class BertClassifier(nn.Module):
    """Logits for each label."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.bert = Encoder()
        self.dropout = nn.Dropout(DROPOUT)
        self.classifier = nn.Linear(HIDDEN, labels)
        nn.init.normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.bert(input_ids, attention_mask, token_type_ids)))
