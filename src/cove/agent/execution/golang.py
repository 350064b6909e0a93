"""Turning a Go snippet into a program."""

import re

MAIN_FILE = "main.go"
_PACKAGE_CLAUSE = re.compile(r"^\s*(?://[^\n]*\n\s*|/\*.*?\*/\s*)*package\s+\w+", re.DOTALL)
_MAIN_FUNCTION = re.compile(r"^func\s+main\s*\(\s*\)", re.MULTILINE)
_IMPORT = re.compile(r'^import\s+(?:\([^)]*\)|[\w.]*\s*"[^"]+")[ \t]*;?[ \t]*$', re.MULTILINE)
_DECLARATION = re.compile(r"^(?:func|type)\s+(?!\()|^func\s+\(\s*\w+\s+\*?\w+[^)]*\)\s*\w+\s*\(")
# Packages that a snippet may use without naming them in an import.
_COMMON_PACKAGES = {
    "bufio": "bufio",
    "bytes": "bytes",
    "errors": "errors",
    "fmt": "fmt",
    "json": "encoding/json",
    "math": "math",
    "os": "os",
    "rand": "math/rand",
    "regexp": "regexp",
    "slices": "slices",
    "sort": "sort",
    "strconv": "strconv",
    "strings": "strings",
    "sync": "sync",
    "time": "time",
}


def complete_program(code: str) -> str:
    """`code` as the text of a main package.

    Code with a package clause is left as it is. Otherwise the clause is added; without a `func main` the statements
    become one, while imports and top-level functions and types stay outside; and a snippet without any import gets
    those of the standard packages that it names. `//line` directives keep the line numbers of messages right.
    """
    if _PACKAGE_CLAUSE.match(code):
        return code
    imports = [match.group(0) for match in _IMPORT.finditer(code)]
    body = _IMPORT.sub(lambda match: "\n" * match.group(0).count("\n"), code)
    if not imports:
        imports = [f'import "{path}"' for name, path in _COMMON_PACKAGES.items() if re.search(rf"\b{name}\.\w", body)]
    head = "\n".join(["package main", *imports])
    if _MAIN_FUNCTION.search(body):
        return f"{head}\n{_from_line(1)}\n{body}\n"
    declarations, statements = _split(body)
    return f"{head}\n{declarations}\nfunc main() {{\n{statements}\n}}\n"


def _split(body: str) -> tuple[str, str]:
    """Top-level functions and types, and all the rest."""
    declarations: list[str] = []
    statements: list[str] = []
    inside = False
    previous: list[str] | None = None
    for number, line in enumerate(body.split("\n"), start=1):
        starts = not inside and bool(_DECLARATION.match(line))
        target = declarations if inside or starts else statements
        if target is not previous:
            target.append(_from_line(number))
        target.append(line)
        previous = target
        if starts:
            inside = line.rstrip().endswith(("{", "("))
        elif inside and line.startswith(("}", ")")):
            inside = False
    return "\n".join(declarations), "\n".join(statements)


def _from_line(number: int) -> str:
    return f"//line {MAIN_FILE}:{number}"
