#!/usr/bin/env python3
"""Fails if source files of a crate import each other in a circle.

    .ci/import_circles.py [--graph] [CRATE_DIRECTORY ...]

Without directories: the crate at the top and those under `crates/`.

A file imports another file if it names one of its items by a path, in `use` or elsewhere. `mod name;` alone is no import.
Comments, literals and code for tests (`#[cfg(test)]`) do not count. `--graph` also prints the imports of every file.
"""

import argparse
import re
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent

# A comment, a raw string, a string or a character, but no lifetime.
COMMENT_OR_LITERAL = re.compile(
    r"""//[^\n]*|/\*.*?\*/|b?c?r(#*)".*?"\1|[bc]?"(?:\\.|[^"\\])*"|b?'(?:\\(?:x\w\w|u\{\w+\}|.)|[^'\\\n])'""", re.S
)
TEST_ATTRIBUTE = re.compile(r"#\[\s*cfg\s*\(\s*(?:test\s*\)|all\s*\(\s*test\b)")
VISIBILITY = re.compile(r"\bpub\s*\([^)]*\)")
FILE_MODULE = re.compile(r"\bmod\s+(?:r#)?(\w+)\s*;")
INLINE_MODULE = re.compile(r"\bmod\s+(?:r#)?(\w+)\s*\{")
USE = re.compile(r"\buse\s+([^;]+);")
PATH = re.compile(r"(?<![\w:.'])(?:crate|super|self|[a-z_]\w*)(?:\s*::\s*\w+)+")


def blank_literals(text):
    """Returns the code with each comment and literal replaced by a space."""
    return COMMENT_OR_LITERAL.sub(" ", text)


def matching_end(code, start):
    """Returns the position after the bracket that closes the one at `start`."""
    depth = 0
    for position in range(start, len(code)):
        if code[position] in "([{":
            depth += 1
        elif code[position] in ")]}":
            depth -= 1
            if depth == 0:
                return position + 1
    return len(code)


def item_end(code, start):
    """Returns the position after the item that begins at `start`: after its `;`, its block, or the `,` of a field."""
    position = start
    while position < len(code):
        if code[position] == "#" and code[position:].lstrip("#! \n").startswith("["):
            position = matching_end(code, code.index("[", position))
        elif code[position] in "([":
            position = matching_end(code, position)
        elif code[position] == "{":
            end = matching_end(code, position)
            # The tree of a `use` and a value go on to their `;`.
            rest = code[end:].lstrip()
            return end if not rest.startswith((";", ",")) else code.index(rest[0], end) + 1
        elif code[position] in ";,":
            return position + 1
        elif code[position] in ")]}":
            return position
        else:
            position += 1
    return len(code)


def split_test_items(code):
    """Returns the code without items for tests, and the names of the modules that are files for tests."""
    test_modules = set()
    found = TEST_ATTRIBUTE.search(code)
    while found:
        end = item_end(code, found.start())
        test_modules.update(FILE_MODULE.findall(code[found.start() : end]))
        code = code[: found.start()] + " " + code[end:]
        found = TEST_ATTRIBUTE.search(code)
    return code, test_modules


def split_inline_modules(code, module):
    """Yields each module path in a file with its code: the file's own, and those of `mod name { ... }` in it."""
    own = ""
    position = 0
    for found in INLINE_MODULE.finditer(code):
        if found.start() < position:
            continue
        brace = found.end() - 1
        end = matching_end(code, brace)
        own += code[position : found.start()] + " "
        yield from split_inline_modules(code[brace + 1 : end - 1], module + (found.group(1),))
        position = end
    yield module, own + code[position:]


def module_path(file, source):
    """Returns the module path of a source file; that of `lib.rs` is empty."""
    parts = file.relative_to(source).with_suffix("").parts
    if parts == ("lib",):
        return ()
    return parts[:-1] if parts[-1] == "mod" else parts


def read_modules(source):
    """Returns the code of every module path, and the file's module path of each; without modules for tests."""
    code_of, file_of, for_tests = {}, {}, set()
    for file in sorted(source.rglob("*.rs")):
        module = module_path(file, source)
        code, test_modules = split_test_items(blank_literals(file.read_text(encoding="utf-8")))
        for_tests.update(module + (name,) for name in test_modules)
        for inner, inner_code in split_inline_modules(VISIBILITY.sub("pub ", code), module):
            code_of[inner] = inner_code
            file_of[inner] = module
    for module in list(code_of):
        if any(module[: len(tests)] == tests for tests in for_tests):
            del code_of[module], file_of[module]
    return code_of, file_of


def expand_use(tree, prefix=()):
    """Yields all paths of a `use` tree, each with the name that it gets."""
    tree = tree.strip()
    depth, start, parts = 0, 0, []
    for index, character in enumerate(tree + ","):
        depth += (character == "{") - (character == "}")
        if character == "," and depth == 0:
            parts.append(tree[start:index].strip())
            start = index + 1
    for part in filter(None, parts):
        head, brace, rest = part.partition("{")
        path, _, alias = re.sub(r"\s+", " ", head).partition(" as ")
        path = tuple(piece.strip() for piece in path.split("::") if piece.strip())
        if brace:
            yield from expand_use(rest.rpartition("}")[0], prefix + path)
            continue
        whole = prefix + path
        if whole[-1:] == ("self",) and len(whole) > 1:
            whole = whole[:-1]
        yield whole, alias.strip() or whole[-1]


def resolve(path, module, names, known):
    """Returns the module that a path leads into and what is left of the path; nothing for a path of another crate."""
    if path[0] == "crate":
        at, rest = (), path[1:]
    elif path[0] in ("super", "self"):
        at, rest = module, path
        while rest and rest[0] in ("super", "self"):
            at = at[:-1] if rest[0] == "super" else at
            rest = rest[1:]
    elif path[0] in names:
        at, rest = names[path[0]], path[1:]
    elif module + path[:1] in known:
        at, rest = module, path
    else:
        return None
    while rest and at + rest[:1] in known:
        at, rest = at + rest[:1], rest[1:]
    return at, rest


def imported_modules(code, module, known):
    """Returns the modules whose items the code of a module names."""
    names, found = {}, set()
    used = [pair for tree in USE.findall(code) for pair in expand_use(tree)]
    inline = [tuple(re.split(r"\s*::\s*", path)) for path in PATH.findall(USE.sub(" ", code))]
    for path, name in used:
        target = resolve(path, module, {}, known)
        if target is None:
            continue
        at, rest = target
        names[name] = at
        # A module that is used by its name is imported where its items are named.
        if rest or not any(other[0] == name for other in inline):
            found.add(at)
    for path in inline:
        target = resolve(path, module, names, known)
        if target is not None:
            at, rest = target
            # A path that ends at a module is the path of another item of that name beside it.
            found.add(at if rest else at[:-1])
    return found


def import_graph(source):
    """Returns for every file, by its module path, the files that it imports."""
    code_of, file_of = read_modules(source)
    graph = {file: set() for file in file_of.values()}
    for module, code in code_of.items():
        targets = {file_of[target] for target in imported_modules(code, module, code_of) if target in file_of}
        graph[file_of[module]] |= targets - {file_of[module]}
    return graph


def find_circles(graph):
    """Returns the strongly connected parts of a graph with more than one member (Tarjan's algorithm)."""
    index, low, stack, circles = {}, {}, [], []

    def enter(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        work.append((node, iter(sorted(graph[node]))))

    for start in sorted(graph):
        work = []
        if start not in index:
            enter(start)
        while work:
            node, targets = work[-1]
            target = next(targets, None)
            if target is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    part = stack[stack.index(node) :]
                    del stack[stack.index(node) :]
                    if len(part) > 1:
                        circles.append(sorted(part))
            elif target not in index:
                enter(target)
            elif target in stack:
                low[node] = min(low[node], index[target])
    return circles


def name_of(module):
    """Returns a module path as Rust writes it."""
    return "::".join(module) or "lib"


def names_of(modules):
    return " ".join(sorted(map(name_of, modules)))


def main():
    parser = argparse.ArgumentParser(description="Fails if source files of a crate import each other in a circle.")
    parser.add_argument("--graph", action="store_true", help="print the imports of every file")
    parser.add_argument("crates", nargs="*", type=Path, metavar="CRATE_DIRECTORY")
    options = parser.parse_args()
    crates = options.crates or [TOP, *sorted(manifest.parent for manifest in TOP.glob("crates/*/Cargo.toml"))]
    has_circles = False
    for crate in crates:
        if not (crate / "src").is_dir():
            parser.error(f"{crate} has no directory src")
        graph = import_graph(crate / "src")
        if options.graph:
            for module, targets in sorted(graph.items()):
                print(name_of(module), "->", names_of(targets))
        for circle in find_circles(graph):
            has_circles = True
            print(f"{crate.resolve().name}: these files import each other in a circle:")
            for module in circle:
                print("  ", name_of(module), "->", names_of(graph[module] & set(circle)))
    return int(has_circles)


if __name__ == "__main__":
    sys.exit(main())
