r"""LaTeX commands by what `vgs_ray.answers.normalize` does with them, and names of functions without a backslash."""

from __future__ import annotations

import re

_SIZES = r"""\left \right \middle \displaystyle \textstyle \scriptstyle \limits \nolimits \big \Big \bigg \Bigg \bigl \bigr \Bigl \Bigr
\biggl \biggr \Biggl \Biggr \bigm \large \Large \LARGE \huge \Huge \normalsize \small \tiny \boldmath \bf \it \sf \mathstrut \strut
\noindent \therefore \because \nonumber \centering"""  # noqa: E501
_SPACES = r"""
    \, \; \: \> \quad \qquad \( \) \[ \] \enspace \thinspace \hfill \nobreak \space
    """.split()
_OTHER_NAMES = r"""
    \lt < \gt > \leq \le \leqslant \le \leqq \le \geq \ge \geqslant \ge \geqq \ge \neq \ne \varnothing \emptyset
    \colon : \ast * \cdots \ldots \dots \ldots \dotsc \ldots \dotsb \ldots \vee \lor \wedge \land \lbrace \{ \rbrace
    \} \lbrack [ \rbrack ] \lparen ( \rparen ) \vert | \lvert | \rvert | \degree ^\circ \textdegree ^\circ \prime '
    \backslash \setminus \smallsetminus \setminus \rightarrow \to \longrightarrow \to \euro € \pounds £ \yen ¥
    \textdollar \$ \infin \infty \triangleq = \coloneqq = \perthousand \permil \bigcup \cup \bigcap \cap \land \land
    \implies \Rightarrow \iff \Leftrightarrow \div / \operatorname* \operatorname \nicefrac \frac \sfrac \frac \lg
    \log \tg \tan \ctg \cot \arctg \arctan \tfrac \frac \dfrac \frac \cfrac \frac \dbinom \binom \tbinom \binom \bar
    \overline \Bbb \mathbb \mathds \mathbb \lbrace \{ \gcd \gcd
    """.split()
RENAMED = dict(zip(_OTHER_NAMES[::2], _OTHER_NAMES[1::2], strict=True))  # `\leq` becomes `\le`
RENAMED |= dict.fromkeys(_SIZES.split(), "") | dict.fromkeys([*_SPACES, "$", "~", "\\ "], " ")
FONTS = set(  # `\mathbf{x}` becomes `x`
    r"""
    \underline \boldsymbol \bm \pmb \mathbf \mathit \mathsf \mathtt \mathnormal \boxed \fbox \framebox \ensuremath
    \mathord
    """.split()
)
TEXT = set(  # `\mathrm{cm}` becomes `\text{cm}`
    r"""
    \text \textrm \textbf \textit \textsf \texttt \textnormal \textup \textsc \textmd \emph \mathrm \mbox \hbox
    \operatorname \mathop \mathrm*
    """.split()
)
COLOURS = {r"\textcolor", r"\colorbox", r"\color"}  # `\textcolor{red}{x}` becomes `x`
REMOVED = {r"\phantom", r"\hphantom", r"\vphantom", r"\label", r"\tag", r"\hspace", r"\vspace"}  # with their argument
# The number of arguments of commands that stay. Each argument gets braces: `\frac12` becomes `\frac{1}{2}`.
ARGUMENTS = {r"\frac": 2, r"\binom": 2, r"\pmod": 1, r"\overline": 1, r"\dot": 1, r"\hat": 1, r"\vec": 1, r"\tilde": 1}
ARGUMENTS |= {
    r"\widehat": 1,
    r"\widetilde": 1,
    r"\overrightarrow": 1,
    r"\mathbb": 1,
    r"\mathcal": 1,
    r"\overset": 2,
    r"\begin": 1,
}
ARGUMENTS |= {r"\end": 1, r"\mathfrak": 1, r"\mathscr": 1, r"\cancel": 1, r"\sqrt": 1}
FUNCTIONS = set(
    """
    sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp lcm gcd max min det
    """.split()
) - {"min"}  # the unit
FUNCTION_ALIASES = {"arctg": "arctan", "tg": "tan", "ctg": "cot", "cosec": "csc", "lg": "log", "sen": "sin"}

_COMMAND_WORDS = re.compile(
    r"(?<![\\A-Za-z{])(?:(?P<open>sqrt)(?=[\s\d({])|(?P<call>arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|gcd|"
    r"lcm|max|min)(?=\s*\()|(?P<trig>sin|cos|tan|log|ln)(?=\s+[\\a-z0-9]|_)|(?P<constant>pi|theta|alpha|beta|infinity|infty|inf)(?![A-Za-z]))"
)
_ASCII_SIGNS = (("<=", r"\le "), (">=", r"\ge "), ("**", "^"), ("->", r"\to "), ("±", r"\pm "))


def add_backslashes(text: str) -> str:
    r"""Names of functions and constants and signs of programming languages as LaTeX: `sqrt(2)` is `\sqrt(2)`, `<=` is `\le`."""
    for typed, latex in _ASCII_SIGNS:
        text = text.replace(typed, latex)
    return _COMMAND_WORDS.sub(
        lambda match: "\\" + match[0].replace("infinity", "infty").replace("infty", "inf").replace("inf", "infty"), text
    )
