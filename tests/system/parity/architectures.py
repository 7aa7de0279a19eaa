"""Small models with random weights, each of an architecture of its own, with a tokenizer trained on texts of many scripts."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

# Models this small lose more by waiting for other threads than they win.
torch.set_num_threads(1)

LONGEST = 64
VOCABULARY = 1_500
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


@dataclass(frozen=True)
class Kind:
    """An architecture: its name among transformers' classes, its tokenizer, and what its configuration needs."""

    name: str
    tokenizer: Callable[[list[str]], PreTrainedTokenizerFast]
    settings: dict
    positions_more: int = 0
    # Where two are of one class.
    called: str = ""
    # Each so many of the texts is asked.
    every: int = 1
    # Standard deviation of the random weights: MobileBERT has layers without normalisation, and rounds much with larger ones.
    deviation: float = 0.3

    @property
    def title(self) -> str:
        """Its name in what is printed."""
        return (self.called or self.name).lower()


def wrapped(tokenizer: Tokenizer, special: dict[str, str], side: str = "right", types: bool = False) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers saves and loads it."""
    names = ["input_ids", *(["token_type_ids"] if types else []), "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=LONGEST, padding_side=side,
                                   model_input_names=names, **special)


def word_piece(texts: list[str], types: bool = True) -> PreTrainedTokenizerFast:
    """As BERT: lower case, words, `##` before continuations."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=special))
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids)
    return wrapped(tokenizer, {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]",
                               "mask_token": "[MASK]"}, types=types)


def word_piece_without_types(texts: list[str]) -> PreTrainedTokenizerFast:
    """As DistilBERT and MPNet."""
    return word_piece(texts, types=False)


def byte_pairs(texts: list[str]) -> PreTrainedTokenizerFast:
    """As RoBERTa: pairs of bytes, `<s>` and `</s>`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return wrapped(tokenizer, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>",
                               "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"})


def byte_pairs_alone(texts: list[str]) -> PreTrainedTokenizerFast:
    """As GPT-2: pairs of bytes, no special tokens around a text, padding on the left."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    end = "<|endoftext|>"
    return wrapped(tokenizer, {"bos_token": end, "eos_token": end, "unk_token": end, "pad_token": end}, side="left")


def unigram(texts: list[str]) -> PreTrainedTokenizerFast:
    """As SentencePiece models: `▁` for spaces."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" {2,}", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(texts, trainers.UnigramTrainer(
        vocab_size=VOCABULARY, special_tokens=special, unk_token="<unk>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return wrapped(tokenizer, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>",
                               "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"})


def bert_class(texts: list[str]):
    """The class of BERT and of the many that read texts as it does."""
    vocabulary = json.loads(word_piece(texts).backend_tokenizer.to_str())["model"]["vocab"]
    return transformers.BertTokenizer(vocab=vocabulary, model_max_length=LONGEST)


def deberta_class(texts: list[str]):
    """The class of DeBERTa v1: pairs of bytes between `[CLS]` and `[SEP]`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    model = json.loads(tokenizer.to_str())["model"]
    return transformers.DebertaTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]], model_max_length=LONGEST)


def deberta_v2_class(texts: list[str]):
    """The class of DeBERTa v2 and v3: a SentencePiece model between `[CLS]` and `[SEP]`."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(texts, trainers.UnigramTrainer(
        vocab_size=VOCABULARY, special_tokens=["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"], unk_token="[UNK]"))
    vocabulary = [tuple(entry) for entry in json.loads(tokenizer.to_str())["model"]["vocab"]]
    return transformers.DebertaV2Tokenizer(vocab=vocabulary, model_max_length=LONGEST)


SMALL_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": LONGEST}
SMALL_BART = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
              "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "decoder_start_token_id": 2}
KINDS = [
    Kind("Bert", word_piece, SIZES),
    Kind("DistilBert", word_piece_without_types, {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}),
    Kind("Roberta", byte_pairs, SIZES, positions_more=2),
    Kind("XLMRoberta", unigram, SIZES, positions_more=2),
    Kind("Albert", unigram, {**SIZES, "embedding_size": 16}),
    Kind("DebertaV2", unigram, {**SIZES, "relative_attention": True, "pos_att_type": ["p2c", "c2p"],
                                "position_biased_input": False, "max_relative_positions": LONGEST}),
    Kind("Electra", word_piece, {**SIZES, "embedding_size": 16}),
    Kind("MPNet", word_piece_without_types, SIZES, positions_more=2),
    Kind("Camembert", unigram, SIZES, positions_more=2),
    Kind("Bart", byte_pairs, SMALL_BART),
    Kind("GPT2", byte_pairs_alone, SMALL_GPT),
    Kind("ModernBert", byte_pairs, {**SIZES, "global_attn_every_n_layers": 2, "local_attention": 16}),
]
RELATIVE = {**SIZES, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False,
            "max_relative_positions": LONGEST, "type_vocab_size": 0}
# With the tokenizer classes that AutoTokenizer finds for them. The first two are right only where each text runs alone.
MORE_KINDS = [
    Kind("MobileBert", bert_class, {**SIZES, "embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16}, every=4, deviation=0.15),
    Kind("ConvBert", bert_class, {**SIZES, "embedding_size": 16, "conv_kernel_size": 3, "head_ratio": 2}, every=4),
    Kind("Deberta", deberta_class, RELATIVE, every=4),
    Kind("DebertaV2", deberta_v2_class, {**RELATIVE, "conv_kernel_size": 3, "conv_act": "gelu"}, called="deberta-v2", every=4),
    Kind("DebertaV2", deberta_v2_class, {**RELATIVE, "position_buckets": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True},
         called="deberta-v3", every=4),
    Kind("SqueezeBert", bert_class, {**SIZES, "embedding_size": 32}, every=4),
    Kind("MegatronBert", bert_class, SIZES, every=4),
    Kind("Ernie", bert_class, SIZES, every=4),
    Kind("RemBert", unigram, {**SIZES, "input_embedding_size": 16, "output_embedding_size": 16}, every=4),
    Kind("Data2VecText", byte_pairs, SIZES, positions_more=2, every=4),
    Kind("GPTNeoX", byte_pairs_alone, SIZES, every=4),
    Kind("Bloom", byte_pairs_alone, {"hidden_size": 32, "n_layer": 2, "n_head": 4}, every=4),
]


def build(kind: Kind, texts: list[str], folder: Path, labels: dict[int, str], head: str = "SequenceClassification",
          **settings) -> None:
    """Saves a model of this kind with these labels. Its logits differ clearly between labels and texts."""
    torch.manual_seed(len(kind.name) * 1_000 + len(labels))
    tokenizer = kind.tokenizer(texts)
    tokens = {name: getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos", "cls", "sep")}
    config = getattr(transformers, f"{kind.name}Config")(
        vocab_size=len(tokenizer), max_position_embeddings=LONGEST + kind.positions_more, id2label=labels,
        label2id={label: number for number, label in labels.items()},
        **{f"{name}_token_id": token for name, token in tokens.items() if token is not None}, **(kind.settings | settings))
    model = getattr(transformers, f"{kind.name}For{head}")(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Random weights of the usual size answer every text alike.
            if weight.dim() == 2 and "LayerNorm" not in name:
                weight.normal_(std=0.15 if "embed" in name else kind.deviation)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
