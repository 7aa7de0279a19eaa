"""CountVectorizer, TfidfVectorizer and TfidfTransformer as graphs that count exactly what Python counts.

skl2onnx has converters of its own. They lower-case "İ" and a final "Σ" otherwise than Python, leave stop words between
the words of an n-gram, and compute `sublinear_tf` with another formula. These converters replace them:

    text -> lower case -> tokens -> numbers of tokens -> without stop words -> n-grams -> tf-idf

Every rule that Python takes from its Unicode tables (`\\w`, white space, cased letters) is read from this Python.
"""

import functools
import re
import sys
from collections.abc import Callable

import numpy
from onnx import TensorProto, helper
from skl2onnx.common.data_types import FloatTensorType
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer

# StringSplit, StringConcat and RegexFullMatch begin with this version.
OPSET = 20
# skl2onnx would ask for en_US.UTF-8, which slim images lack; C.UTF-8 is part of the C library.
LOCALE = "C.UTF-8"
# The same words in Python and in RE2: a class of characters, and how many of them a token has at least.
TOKEN_PATTERNS = {r"\b\w\w+\b": 2, r"\w\w+": 2, r"\w{2,}": 2, r"\b\w{2,}\b": 2, r"\b\w+\b": 1, r"\w+": 1}
UNKNOWN, STOP_WORD, FIRST_TOKEN = 0, 1, 2
# A number that no token has.
NEVER = -1
TYPES = {numpy.dtype(numpy.float32): TensorProto.FLOAT, numpy.dtype(numpy.int64): TensorProto.INT64,
         numpy.dtype(bool): TensorProto.BOOL}


def converters() -> dict[str, dict]:
    """What `to_onnx` takes to use these converters."""
    kinds = {CountVectorizer: convert_vectorizer, TfidfVectorizer: convert_vectorizer, TfidfTransformer: convert_weights}
    return {"custom_conversion_functions": kinds, "custom_shape_calculators": dict.fromkeys(kinds, set_output_type)}


class Nodes:
    """Adds nodes to a graph that skl2onnx builds. Each method returns the name of the node's first output."""

    def __init__(self, scope, container) -> None:
        self.scope, self.container = scope, container

    def name(self) -> str:
        """A new name of a value."""
        return self.scope.get_unique_variable_name("text")

    def add(self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes):
        """A node. Gives one name, or a list where there are several outputs."""
        names = [self.name() for _ in range(outputs)]
        version = OPSET if not domain else {"ai.onnx.ml": 2}.get(domain, 1)
        self.container.add_node(kind, list(inputs), names, op_domain=domain, op_version=version,
                                name=self.scope.get_unique_operator_name(kind), **attributes)
        return names[0] if outputs == 1 else names

    def constant(self, value) -> str:
        """A tensor of the graph."""
        name = self.name()
        array = numpy.asarray(value)
        if array.dtype.kind == "U":
            content = [text.encode() for text in array.ravel().tolist()]
            self.container.add_initializer(name, TensorProto.STRING, list(array.shape), content)
        else:
            self.container.add_initializer(name, TYPES[array.dtype], list(array.shape), array.ravel().tolist())
        return name

    def columns(self, value: str, start: int, end: int) -> str:
        """Columns of a matrix."""
        return self.add("Slice", value, *(self.constant(numpy.int64([number])) for number in (start, end, 1)))


@functools.cache
def characters(rule: Callable[[str], bool]) -> str:
    """The characters that a rule of Python picks, as a class of RE2."""
    found = []
    first = None
    for number in range(1, sys.maxunicode + 2):
        surrogate = 0xD800 <= number < 0xE000
        picked = number <= sys.maxunicode and not surrogate and rule(chr(number))
        if picked and first is None:
            first = number
        elif not picked and first is not None:
            found.append(rf"\x{{{first:x}}}-\x{{{number - 1:x}}}")
            first = None
    return f"[{''.join(found)}]"


def is_word(character: str) -> bool:
    r"""Whether Python's `\w` takes it."""
    return character == "_" or character.isalnum()


def is_ignored_by_case(character: str) -> bool:
    """Whether Python looks past it for the letter before a Σ."""
    return f"A{character}Σ".lower().endswith("ς") and not f"{character}Σ".lower().endswith("ς")


def is_cased(character: str) -> bool:
    """Whether a Σ behind it ends a word of Python's."""
    return f"{character}Σ".lower().endswith("ς")


def plain_pattern(vectorizer: CountVectorizer) -> str:
    """The token pattern without the flag that Python no longer needs."""
    return (vectorizer.token_pattern or "").removeprefix("(?u)")


def set_output_type(operator) -> None:
    """A row for each text, a column for each feature."""
    step = operator.raw_operator
    columns = len(step.vocabulary_) if isinstance(step, CountVectorizer) else step.n_features_in_
    operator.outputs[0].type = FloatTensorType([None, columns])


def convert_vectorizer(scope, operator, container) -> None:
    """Text [n, 1] to counts or weights [n, features]."""
    vectorizer = operator.raw_operator
    nodes = Nodes(scope, container)
    text = nodes.add("Reshape", operator.inputs[0].full_name, nodes.constant(numpy.int64([-1])))
    if vectorizer.lowercase:
        # StringSplit gives an empty text no piece.
        blank = nodes.add("Equal", text, empty(nodes))
        text = lower_case(nodes, nodes.add("Where", blank, nodes.constant(numpy.array(stranger(vectorizer))), text))
    counts = count(nodes, vectorizer, text)
    if isinstance(vectorizer, TfidfVectorizer):
        counts = weigh(nodes, vectorizer._tfidf, counts)
    container.add_node("Identity", [counts], [operator.outputs[0].full_name],
                       name=scope.get_unique_operator_name("Identity"))


def convert_weights(scope, operator, container) -> None:
    """Counts [n, features] to weights of the same shape."""
    nodes = Nodes(scope, container)
    weights = weigh(nodes, operator.raw_operator, operator.inputs[0].full_name)
    container.add_node("Identity", [weights], [operator.outputs[0].full_name],
                       name=scope.get_unique_operator_name("Identity"))


def lower_case(nodes: Nodes, text: str) -> str:
    """`str.lower()` of texts [n]: character by character in the C library, but for the two that depend on more."""
    pieces, counts = nodes.add("StringSplit", text, outputs=2, delimiter="İ")
    joint = nodes.constant(numpy.array("İ".lower()))
    text = join(nodes, pieces, nodes.add("Where", is_there(nodes, pieces, counts), joint, empty(nodes)))
    pieces, counts = nodes.add("StringSplit", text, outputs=2, delimiter="Σ")
    sigma = nodes.add("Where", ends_word(nodes, pieces, counts), nodes.constant(numpy.array("ς")),
                      nodes.constant(numpy.array("σ")))
    text = join(nodes, pieces, nodes.add("Where", is_there(nodes, pieces, counts), sigma, empty(nodes)))
    return nodes.add("StringNormalizer", text, case_change_action="LOWER", is_case_sensitive=1, locale=LOCALE)


def stranger(vectorizer: CountVectorizer) -> str:
    """A character that counts for nothing: white space between words, else one that is not in the vocabulary."""
    if vectorizer.analyzer == "char_wb":
        return " "
    known = {character for entry in vectorizer.vocabulary_ for character in entry}
    return next(chr(number) for number in range(0xE000, 0xF8FF) if chr(number) not in known)


def empty(nodes: Nodes) -> str:
    """The empty text."""
    return nodes.constant(numpy.array(""))


def joint_numbers(nodes: Nodes, pieces: str) -> str:
    """1 for the joint before the second piece, 2 for the next: [k - 1]."""
    width = nodes.add("Gather", nodes.add("Shape", pieces), nodes.constant(numpy.int64(1)), axis=0)
    return nodes.add("Range", nodes.constant(numpy.int64(1)), width, nodes.constant(numpy.int64(1)))


def is_there(nodes: Nodes, pieces: str, counts: str) -> str:
    """Whether the text of each row has each joint: [n, k - 1]."""
    column = nodes.add("Unsqueeze", counts, nodes.constant(numpy.int64([1])))
    return nodes.add("Less", joint_numbers(nodes, pieces), column)


def ends_word(nodes: Nodes, pieces: str, counts: str) -> str:
    """Whether the Σ at each joint is written ς: a cased letter is before it, and none behind it. [n, k - 1]"""
    numbers = joint_numbers(nodes, pieces)
    cased, ignored = characters(is_cased), f"{characters(is_ignored_by_case)}*"
    before, behind = nodes.columns(pieces, 0, -1), nodes.columns(pieces, 1, sys.maxsize)
    # A piece of nothing to look at: the letter is the Σ beyond it, if there is one.
    beyond = nodes.add("Greater", numbers, nodes.constant(numpy.int64(1)))
    more = nodes.add("Less", nodes.add("Add", numbers, nodes.constant(numpy.int64(1))),
                     nodes.add("Unsqueeze", counts, nodes.constant(numpy.int64([1]))))
    found = []
    for piece, pattern, other in ((before, f"(?s).*{cased}{ignored}", beyond), (behind, f"(?s){ignored}{cased}.*", more)):
        seen = nodes.add("RegexFullMatch", piece, pattern=pattern)
        nothing = nodes.add("RegexFullMatch", piece, pattern=ignored)
        found.append(nodes.add("Or", seen, nodes.add("And", nothing, other)))
    return nodes.add("And", found[0], nodes.add("Not", found[1]))


def join(nodes: Nodes, pieces: str, joints: str) -> str:
    """Pieces [n, k] with the joints [n, k - 1] between them, as texts [n]. A loop of k - 1 turns, which is none mostly."""
    first = nodes.add("Gather", pieces, nodes.constant(numpy.int64(0)), axis=1)
    rest = nodes.columns(pieces, 1, sys.maxsize)
    turns = nodes.add("Gather", nodes.add("Shape", joints), nodes.constant(numpy.int64(1)), axis=0)
    turn, goes_on, so_far, still, joint, piece, longer, whole = (nodes.name() for _ in range(8))
    body = helper.make_graph(
        [helper.make_node("Gather", [joints, turn], [joint], axis=1),
         helper.make_node("Gather", [rest, turn], [piece], axis=1),
         helper.make_node("StringConcat", [so_far, joint], [longer]),
         helper.make_node("StringConcat", [longer, piece], [whole]),
         helper.make_node("Identity", [goes_on], [still])],
        nodes.scope.get_unique_operator_name("join"),
        [helper.make_tensor_value_info(turn, TensorProto.INT64, []),
         helper.make_tensor_value_info(goes_on, TensorProto.BOOL, []),
         helper.make_tensor_value_info(so_far, TensorProto.STRING, [None])],
        [helper.make_tensor_value_info(still, TensorProto.BOOL, []),
         helper.make_tensor_value_info(whole, TensorProto.STRING, [None])])
    return nodes.add("Loop", turns, nodes.constant(numpy.bool_(True)), first, body=body)


def count(nodes: Nodes, vectorizer: CountVectorizer, text: str) -> str:
    """How often each n-gram of the vocabulary is in each text: [n, features]."""
    words = vectorizer.analyzer == "word"
    stop_words = sorted(vectorizer.get_stop_words() or ()) if words else []
    parts = {entry: tuple(entry.split(" ")) if words else tuple(entry) for entry in vectorizer.vocabulary_}
    known = sorted({part for entry in parts.values() for part in entry} - set(stop_words))
    numbers = {part: number for number, part in enumerate(known, FIRST_TOKEN)}
    reader = {"word": word_numbers, "char": character_numbers, "char_wb": padded_word_numbers}[vectorizer.analyzer]
    codes = reader(nodes, vectorizer, text, numbers | dict.fromkeys(stop_words, STOP_WORD))
    # A text without a token has a column, too.
    codes = nodes.add("Pad", codes, nodes.constant(numpy.int64([0, 0, 0, 1])), nodes.constant(numpy.int64(UNKNOWN)))
    if stop_words or vectorizer.analyzer == "char_wb":
        codes = without_stop_words(nodes, codes)
    counts = nodes.add("TfIdfVectorizer", codes, mode="TF", max_skip_count=0, **n_grams(vectorizer, parts, numbers))
    if vectorizer.binary:
        counts = nodes.add("Cast", nodes.add("Cast", counts, to=TensorProto.BOOL), to=TensorProto.FLOAT)
    return counts


def numbered(nodes: Nodes, tokens: str, numbers: dict[str, int]) -> str:
    """The number of each token."""
    return nodes.add("LabelEncoder", tokens, domain="ai.onnx.ml", keys_strings=[key.encode() for key in numbers],
                     values_int64s=list(numbers.values()), default_int64=UNKNOWN)


def word_numbers(nodes: Nodes, vectorizer: CountVectorizer, text: str, numbers: dict[str, int]) -> str:
    """The numbers of the words of each text, in a row: [n, words]."""
    least = TOKEN_PATTERNS[plain_pattern(vectorizer)]
    tokens = nodes.add("Tokenizer", text, domain="com.microsoft", mark=0, mincharnum=1, pad_value="",
                       tokenexp=f"{characters(is_word)}{{{least},}}")
    return numbered(nodes, tokens, numbers)


def character_numbers(nodes: Nodes, vectorizer: CountVectorizer, text: str, numbers: dict[str, int]) -> str:
    """The numbers of the characters of each text: [n, characters]. Several white characters in a row count as a space."""
    spaces = f"{characters(str.isspace)}{{2,}}"
    tokens = nodes.add("Tokenizer", text, domain="com.microsoft", mark=0, mincharnum=1, pad_value="",
                       tokenexp=f"(?s){spaces}|.")
    folded = nodes.add("Where", nodes.add("RegexFullMatch", tokens, pattern=spaces), nodes.constant(numpy.array(" ")), tokens)
    return numbered(nodes, folded, numbers)


def padded_word_numbers(nodes: Nodes, vectorizer: CountVectorizer, text: str, numbers: dict[str, int]) -> str:
    """The numbers of the characters of each word between two spaces, and what belongs to no n-gram between the words.

    Each character has three places: for a space before it, for itself, and for a space behind it. [n, 3 * characters]
    """
    tokens = nodes.add("Tokenizer", text, domain="com.microsoft", mark=0, mincharnum=1, pad_value="",
                       tokenexp=f"(?s){characters(str.isspace)}+|.")
    white = nodes.add("RegexFullMatch", tokens, pattern=f"{characters(str.isspace)}*")
    codes = nodes.add("Where", white, nodes.constant(numpy.int64(UNKNOWN)), numbered(nodes, tokens, numbers))
    numbered_white, one = nodes.add("Cast", white, to=TensorProto.INT64), nodes.constant(numpy.int64(1))
    space, nothing = nodes.constant(numpy.int64(numbers.get(" ", UNKNOWN))), nodes.constant(numpy.int64(STOP_WORD))
    last = nodes.constant(numpy.int64([-1]))
    places = []
    # The neighbour before: a column of white space in front, and one less at the end. The other way for that behind.
    for pads, start, end in (([0, 1, 0, 0], 0, -1), ([0, 0, 0, 1], 1, sys.maxsize)):
        beside = nodes.columns(nodes.add("Pad", numbered_white, nodes.constant(numpy.int64(pads)), one), start, end)
        edge = nodes.add("And", nodes.add("Cast", beside, to=TensorProto.BOOL), nodes.add("Not", white))
        places.append(nodes.add("Unsqueeze", nodes.add("Where", edge, space, nothing), last))
    threefold = nodes.add("Concat", places[0], nodes.add("Unsqueeze", codes, last), places[1], axis=2)
    return nodes.add("Flatten", threefold, axis=1)


def without_stop_words(nodes: Nodes, codes: str) -> str:
    """The same rows with what follows a stop word moved up to its place, and room at the end."""
    stops = nodes.add("Equal", codes, nodes.constant(numpy.int64(STOP_WORD)))
    kept = nodes.add("Cast", nodes.add("Not", stops), to=TensorProto.INT64)
    place = nodes.add("Sub", nodes.add("CumSum", kept, nodes.constant(numpy.int64(1))), nodes.constant(numpy.int64(1)))
    # All stop words go to the last column, which the padding has left empty, and write there what is there.
    last = nodes.add("Sub", nodes.add("Gather", nodes.add("Shape", codes), nodes.constant(numpy.int64(1)), axis=0),
                     nodes.constant(numpy.int64(1)))
    nothing = nodes.constant(numpy.int64(UNKNOWN))
    blank = nodes.add("Mul", codes, nothing)
    return nodes.add("ScatterElements", blank, nodes.add("Where", stops, last, place),
                     nodes.add("Where", stops, nothing, codes), axis=1)


def n_grams(vectorizer: CountVectorizer, parts: dict[str, tuple[str, ...]], numbers: dict[str, int]) -> dict[str, list | int]:
    """The attributes of the node that counts: the n-grams, the shortest first, and the column of each."""
    shortest, longest = vectorizer.ngram_range
    by_length: dict[int, list[tuple[list[int], int]]] = {length: [] for length in range(1, longest + 1)}
    columns = len(vectorizer.vocabulary_)
    for entry, column in vectorizer.vocabulary_.items():
        # An entry of another length, or with a stop word, is never found; but char_wb takes shorter words whole.
        whole = vectorizer.analyzer == "char_wb" and entry.startswith(" ") and entry.endswith(" ") and len(entry) > 2
        least = 1 if whole else shortest
        if least <= len(parts[entry]) <= longest and all(part in numbers for part in parts[entry]):
            by_length[len(parts[entry])].append(([numbers[part] for part in parts[entry]], int(column)))
    if not any(column == columns - 1 for found in by_length.values() for _, column in found):
        by_length[shortest].append(([NEVER] * shortest, columns - 1))
    pool: list[int] = []
    starts: list[int] = []
    indexes: list[int] = []
    for found in by_length.values():
        starts.append(len(pool))
        pool += [number for gram, _ in found for number in gram]
        indexes += [column for _, column in found]
    shortest = min(length for length, found in by_length.items() if found)
    return {"min_gram_length": shortest, "max_gram_length": longest, "pool_int64s": pool, "ngram_counts": starts,
            "ngram_indexes": indexes}


def weigh(nodes: Nodes, step: TfidfTransformer, counts: str) -> str:
    """tf-idf of counts."""
    if step.sublinear_tf:
        one = nodes.constant(numpy.float32(1))
        there = nodes.add("Greater", counts, nodes.constant(numpy.float32(0)))
        counts = nodes.add("Where", there, nodes.add("Add", nodes.add("Log", nodes.add("Where", there, counts, one)), one), counts)
    if step.use_idf:
        counts = nodes.add("Mul", counts, nodes.constant(step.idf_.astype(numpy.float32)))
    if step.norm is None:
        return counts
    size = nodes.add({"l1": "ReduceL1", "l2": "ReduceL2"}[step.norm], counts, nodes.constant(numpy.int64([1])), keepdims=1)
    nothing = nodes.add("Equal", size, nodes.constant(numpy.float32(0)))
    return nodes.add("Div", counts, nodes.add("Where", nothing, nodes.constant(numpy.float32(1)), size))
