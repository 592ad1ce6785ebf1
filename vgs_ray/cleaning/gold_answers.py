r"""Gold answers that are no value: placeholders, sentences, and sets or conditions described in words. Pure.

An answer in prose is compared word by word, so a correct response in other words would count as incorrect. Kept are single
words (`\text{Yes}`, `\text{Monday}`, `\text{east}`), numbers with units, values joined by "and" or "or", names, and the
phrases of `FIXED_PHRASES`, which have one usual wording.
"""

from __future__ import annotations

import re

SENTENCE_WORDS = 5  # an answer with this many words is a sentence

# Compared without case, spaces, LaTeX and punctuation.
PLACEHOLDERS = frozenset(
    """
    notfound answernotfound solutionnotfound noanswer noanswerfound noanswergiven noanswerprovided noanswerextracted
    answernotgiven answermissing noanswerneeded unknown unknownanswer unanswered none null nan nil nofinalanswer
    notavailable notapplicable notprovided notgiven notspecified notmentioned notextracted noboxedanswer missing
    missinganswer omitted tbd todo empty blank error invalid
    proof theproof proofs prove proved proven proofgiven proofomitted proofrequired proofneeded proofproblem proofbased
    proofbasedquestion seeproof seetheproof seesolution seethesolution solution seesolutions seeabove seebelow
    seeexplanation seetheexplanation seedetails seeanswer seefigure seegraph seeattached asabove asshown asshownabove
    qed selfevident answersmayvary answersvary answerswillvary variousanswers lefttothereader
    sielelösung siehelösung siehebeweis beweis voirsolution voirlasolution voirdémonstration démonstration preuve
    versolución verlasolución demostración demostracion dimostrazione vedisoluzione demonstração demonstracao versolução
    доказательство доказано смрешение смдоказательство нетответа неизвестно довeдення доведення dowód kanıt
    見解析 见解析 见详解 见解答 见答案 见证明 见上 见下 见题解 略 答案略 解答略 无 無 無答案 无答案 未知 省略 暂无 暂缺
    解説参照 解答参照 풀이참조 해설참조 없음 증명
    """.split()
)
_PROOF_FIRST = re.compile(r"\W*(?:[证證証]明|proof\b)", re.I)
_NOT_AVAILABLE = re.compile(r"[\s.(\[]*(?:N/A|n/a|N\.A\.|NA)[\s.)\]]*")

FIXED_PHRASES = frozenset(
    """
    doesnotexist donotexist nosolution nosolutions norealsolution norealsolutions nointegersolutions nosuchnumber
    infinitelymany infinitelymanysolutions infinitesolutions cannotbedetermined notpossible impossible undefined notdefined
    notenoughinformation
    """.split()
)

_TEXT = re.compile(
    r"\\(?:text|mbox|textbf|textrm|textit|textup|mathrm|mathbf|mathit|operatorname|boxed|underline)\b\*?"
)
_SCRIPT = re.compile(r"[_^] ?(?:\{ ?[A-Za-z]+ ?\}|[A-Za-z]+)")  # `_{max}` in a_{max}
_MACRO = re.compile(r"\\(?:begin|end) ?\{[^{}]{0,30}\}|\\[A-Za-z]+|\\.")
_CASES = re.compile(r"\\begin ?\{(?:cases|array|matrix|aligned)")
_WORD = re.compile(r"[^\W\d_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_EAST_ASIAN = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{3}"
)  # one or two characters are a unit, "and" or "or"
_MEASURE = re.compile(
    r"(?<=[\d}万千百]) ?(?:平方|立方)?"
    r"(?:毫米|厘米|釐米|公分|分米|千米|公里|公尺|米|单位|單位|小时|小時|分钟|分鐘|公顷|公頃|千克|公斤|毫升)"
)
_FUNCTIONS = frozenset(
    (
        "sin cos tan cot sec csc ln lg log exp lim max min sup inf gcd lcm mod det arg deg sinh cosh tanh arcsin arccos arctan "
        "cis const cm mm km kg ft in"
    ).split()
)
_STATEMENT = frozenset(
    (
        "is are was were be has have had does exist exists converge converges diverge diverges equal equals divides must can "
        "cannot may holds tends becomes satisfies satisfy satisfying wins win loses passes lies iff unless except because since "
        "therefore thus hence it this that there these those they such which who where whenever than between"
    ).split()
)
_CONDITION = frozenset("if when otherwise while provided".split())
_PROPERTY = frozenset(
    (
        "odd even prime primes composite positive negative nonnegative nonzero rational irrational integer integers natural "
        "real reals divisible coprime square squares multiple multiples number numbers increasing decreasing bounded constant "
        "arbitrary true false"
    ).split()
)
_NUMERALS = frozenset(
    "and or hundred thousand million twenty thirty forty fifty sixty seventy eighty ninety half minus over".split()
)
_VAGUE = frozenset("all any every each only exactly least most".split())
_QUANTIFIER = re.compile(
    r"(?<=\S )for (?:all|any|every|each)\b(?: (?:real|complex|rational|natural|positive|nonnegative))?"
    r"(?: (?:numbers?|integers?|constants?))?\b",
    re.I,
)
_LEAD = re.compile(r"\W*(?:the )?(?:final |correct )?answer(?: is|:)?:? ?(?=\W*[\dA-Za-z])", re.I)
_ARTICLE = re.compile(
    r"(?<!\w)(?:(?:an?|the) (?!and\b|or\b)(?:[\w-]{0,20}\d[\w-]{0,20} )?"
    r"|(?:une?|le|la|les|eine?|der|die|das|una|uno|el|los|las|il|uma?) )"
    r"([^\W\d_]{3,})",
    re.I,
)
_STARTS_WITH_NUMBER = re.compile(r"[\s$({\\,;:!\[+-]*(?:[dt]?frac|sqrt|pi)?[\s{(]*\d")


def no_value(answer: str) -> str | None:
    """The reason why an answer is no value: "a placeholder", "a sentence", ... None for a value. Takes linear time."""
    answer = " ".join(answer.split())
    letters = re.sub(r"[\W_]+", "", _TEXT.sub("", answer)).casefold()
    if letters in FIXED_PHRASES:
        return None
    if (
        letters in PLACEHOLDERS
        or _PROOF_FIRST.match(_unwrapped(answer))
        or _NOT_AVAILABLE.fullmatch(_unwrapped(answer))
    ):
        return "a placeholder"
    if _EAST_ASIAN.search(_MEASURE.sub("", answer)):
        return "a sentence"
    return _prose(_LEAD.sub("", _unwrapped(answer), count=1) if _LEAD.match(answer) else answer)


def _unwrapped(answer: str) -> str:
    return re.sub(r"[{}]", " ", _TEXT.sub("", answer))


def _prose(answer: str) -> str | None:
    cases = _CASES.search(answer) is not None
    text = " ".join(_MACRO.sub(" ", _SCRIPT.sub(" ", _unwrapped(answer))).split())
    if sum(len(word) > 1 for word in _words(text)) >= SENTENCE_WORDS and not cases:
        return "a sentence"
    words = _words(_QUANTIFIER.sub(" ", text))
    if _STATEMENT.intersection(words) or ((_CONDITION.intersection(words) or "当" in answer) and not cases):
        return "a statement or a condition in words"
    if _STARTS_WITH_NUMBER.match(_TEXT.sub("", answer)):
        return None  # a quantity, such as 18 integers or 5 feet a second
    if (
        _VAGUE.intersection(words)
        or _described(answer, text)
        or (len(words) > 1 and _PROPERTY.intersection(words) and not cases)
    ):
        return "a description"
    return None


def _words(text: str) -> list[str]:
    return [word for word in map(str.casefold, _WORD.findall(text)) if word not in _FUNCTIONS]


def _described(answer: str, text: str) -> bool:
    """Whether a text contains a noun with its article (`a circle`, but not `a cos x`), or is a phrase of words only."""
    if "$" in answer:
        text = " $ ".join(answer.split("$")[::2])
    article = _ARTICLE.search(text)
    if article is not None and article[1].casefold() not in _FUNCTIONS:
        return True
    words = _words(text)  # `two parallel lines`
    return (
        len(words) > 2 and all(map(str.isalpha, text.split())) and text.islower() and not _NUMERALS.intersection(words)
    )
