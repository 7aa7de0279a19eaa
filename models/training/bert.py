"""BERT with a classification head, written for a lean ONNX graph.

Weights carry the names that Hugging Face's BertForSequenceClassification gives them, so its checkpoints load.
What differs is the shape of the exported graph: every linear layer sees a matrix of all tokens, which exports as one
`Gemm` with its bias inside, and the batch shape is read once from the input instead of before every reshape.
"""

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
        positions = self.position_embeddings.weight[:input_ids.shape[1]]
        total = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids) + positions
        return self.dropout(self.LayerNorm(total.reshape(-1, HIDDEN)))


class SelfAttention(nn.Module):
    """Attention of every token of a text to every other one of it."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(HIDDEN, HIDDEN)
        self.key = nn.Linear(HIDDEN, HIDDEN)
        self.value = nn.Linear(HIDDEN, HIDDEN)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, tokens: Tensor, bias: Tensor, batch: int, length: int) -> Tensor:
        heads = (batch, length, HEADS, HEAD_SIZE)
        query = self.query(tokens).view(heads).permute(0, 2, 1, 3)
        key = self.key(tokens).view(heads).permute(0, 2, 3, 1)
        value = self.value(tokens).view(heads).permute(0, 2, 1, 3)
        weights = self.dropout((query @ key * HEAD_SIZE ** -0.5 + bias).softmax(dim=-1))
        return (weights @ value).permute(0, 2, 1, 3).reshape(-1, HIDDEN)


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

    def forward(self, tokens: Tensor, bias: Tensor, batch: int, length: int) -> Tensor:
        attended = self.attention["self"](tokens, bias, batch, length)
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
        # Added to the attention scores: nothing for a token, far below every score for padding.
        bias = (1.0 - attention_mask[:, None, None, :].float()) * -1e4
        tokens = self.embeddings(input_ids, token_type_ids)
        for layer in self.encoder["layer"]:
            tokens = layer(tokens, bias, batch, length)
        return self.pooler["dense"](tokens.view(batch, length, HIDDEN)[:, 0]).tanh()


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
