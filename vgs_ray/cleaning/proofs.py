"""Problems that ask for a proof, in the languages of public problem sets. Pure.

A word that asks for a proof ("prove", "démontrer", "докажите", "证明") counts at the start of a clause, and elsewhere where the
problem asks for no value. A word that may also go with a value ("verify", "justify", "show") counts at the start of a clause
only, and only where the problem asks for no value.
"""

from __future__ import annotations

import re

_PROOF = re.compile(
    r"\b(?:(?:dis)?prove\b(?! (?:your|it)\b)|show(?:ing)?,? (?:\w{1,20} )?that\b|demonstrate (?:that|the|why)\b|proof that\b"
    r"|(?:give|provide|write|find|supply|present|complete|construct|outline) (?:\w{1,20} ){0,4}proof(?:: | (?:of|for|that|by)\b)"
    # French
    r"|d[ée]montr(?:er|ez|ons|e)\b|prouve[rz]\b|montr(?:er|ez|ons),? (?:\w{1,20} )?(?:que|qu['’])"
    r"|(?:[ée]tabli(?:r|ssez)|en d[ée]duire) (?:que|qu['’])"
    # German
    r"|beweise(?:n sie)?,?:? (?:dass|daß|die|den|das|für|mit)\b|beweise:|zeigen?(?: sie)?,? (?:dass|daß)\b|zeigen sie:"
    r"|man (?:zeige|beweise)\b|(?:weise(?:n sie)?|man weise) nach\b|zu (?:zeigen|beweisen)\b"
    # Spanish
    r"|demu[eé]str(?:e|en|ese|ame)\b|demostrar\b|(?:pru[eé]b(?:e|ese)|probar|mu[eé]str(?:e|ese)|mostrar) que\b"
    # Italian, Portuguese
    r"|(?:si )?dimostr(?:are|i|ate|ino)\b|(?:prov|mostr)(?:are|i|ate) che\b"
    r"|demonstr(?:e|ar|em)\b|(?:prov|mostr)(?:e|ar|em) que\b"
    # Romanian, Polish, Czech, Dutch, Swedish, Hungarian
    r"|s[ăa] se (?:arate|demonstreze)\b|demonstra[țţt]i\b|(?:ar[ăa]ta|dovedi)[țţt]i c[ăa]\b"
    r"|udowodni(?:j|jcie|[ćc])\b|(?:wyka[żz]|poka[żz])(?:cie)?,? [żz]e\b"
    r"|(?:wy|po)kaza[ćc],? [żz]e\b|dowie(?:[śs][ćc]|d[źz]),? [żz]e\b"
    r"|doka[žz](?:te|me)\b|uka[žz]te,? [žz]e\b|bewijs,? dat\b|toon aan,? dat\b|(?:bevisa|visa),? att\b"
    r"|bizony[íi]tsu[kd]\b|igazolju[kd]\b|mutassu[kd] meg\b"
    # Turkish
    r"|(?:kan[ıi]tla|ispatla)(?:y[ıi]n(?:[ıi]z)?)?(?![\w])|ispat edin|g[öo]sterin(?:iz)? ki\b|oldu[ğg]unu g[öo]ster"
    # Russian, Ukrainian, Bulgarian, Greek
    r"|докаж(?:и|ите|ем|ете|іть)\b|доказать\b|(?:приведите|дайте) доказательство\b|(?:покажите|показать|покажи),? что\b"
    r"|довед(?:іть|и)\b|(?:довести|покажіть|показати),? що\b|αποδε[ίι]ξ(?:τε|ετε)|δε[ίι]ξτε [όο]τι|buktikan\b|chứng minh)"
    # Chinese, Japanese, Korean, Arabic, Hindi
    r"|(?<!可以)(?<!可)(?<!已)(?<!已经)(?<!身份)(?<!学生)[证證証]明(?![书書写寫照]|材料|文件)|求[证證証]|[试試][证證]"
    r"|ことを示[せし]|を示[せし](?:。|なさい|てください|$)|증명(?:하|해)|보이(?:시오|라|세요)|보여라|임을 보[이여]"
    r"|أثبت|برهن|सिद्ध (?:कीजिए|करें|करो)",
    re.I,
)
# Text before a proof word that reports and does not ask: "Alice wants to show that", "could prove", "можно доказать".
_REPORTED = re.compile(
    r"(?:\b(?:wants?|wanted|trie[sd]|try|trying|wish(?:es|ed)?|likes?|decided?|hope[sd]?|attempts?|needs?|able|likely|order) "
    r"(?:to )?|\b(?:can|could|may|might|did|does|will|would|cannot|can't|couldn't|didn't)(?: (?!you\b|we\b)(?:the )?\w{1,20})? "
    r"|можно |можем |удалось |pour )$",
    re.I,
)
_CLAIM = r"(?:identity|identities|inequality|formula|claim|statement|assertion|equality|result|relation|theorem|equation|fact)"
_MAY_PROVE = re.compile(
    r"\b(?:(?:verify|justify|deduce|conclude|infer|argue|confirm|check|establish) "
    r"(?:(?:directly|algebraically|formally|by \w{1,20}),? )?that\b"
    rf"|(?:verify|establish|confirm|justify) (?:the|this) (?:\w{{1,20}} )?{_CLAIM}\b|verify: |(?<!.)proof: "
    r"|(?:justify|explain|show) why\b|give reasons? why\b"
    r"|show(?::|,? (?:\$|\\\(|by (?:induction|contradiction)\b|for (?:all|any|every|each)\b"
    r"|there (?:is|are|exist)|if\b|(?:every|each|any)\b(?! step)))"
    rf"|show the (?:\w{{1,20}} )?(?:{_CLAIM}|following|existence|uniqueness|convergence|divergence|irrationality|continuity)\b"
    r"|show,? (?:using|by|via|with) [^.?!,]{1,60},? that\b"
    # French, German, Spanish, Portuguese, Italian, Romanian, Polish, Russian, Ukrainian, Chinese, Turkish
    r"|(?:montre|prouve|d[ée]montre|muestra|prueba|demuestra|mostra|prova|dimostra|demonstra) (?:que|qu['’]|che)"
    r"|(?:v[ée]rifi|justifi)(?:er|ez|ons) (?:que|qu['’])"
    r"|(?:begründe|überprüfe|bestätige)n?(?: sie)?,? (?:dass|daß|warum)\b"
    r"|(?:verifique|compruebe|comprueba|justifique|verifica|verificar|comprobar) que\b|verific(?:are|a|ate) che\b"
    r"|verifica[țţt]i c[ăa]\b|sprawd[źz],? [żz]e\b"
    r"|(?:убедитесь|обоснуйте|проверьте|установите|объясните),? (?:что|почему)\b"
    r"|(?:перевірте|обґрунтуйте|переконайтеся),? що\b|do[ğg]rulay[ıi]n)|[试試][说說]明|验证|驗證",
    re.I,
)
_ASKS_VALUE = re.compile(
    r"[?？]|\b(?:find|determine|calculate|compute|evaluate|solve|simplify|express|how (?:many|much|long|far|old)|what (?:is|are)|"
    r"list (?:all|the)|estimate|write (?:the|an?|down)|give the|factor|expand|"
    r"trouve[rz]?|calcule[rz]?|d[ée]terminer?|combien|quel\w{0,4}|finden?|bestimmen?|berechnen?|l[öo]sen?|wie viele?|welche\w?|"
    r"encuentr[ae]|hall[ae]r?|calcul[ae]r?|resuelv[ae]|cu[aá]nt\w{1,2}|cu[aá]l\w{0,2}|trova(?:re)?|calcola(?:re)?|quant[oie]|"
    r"encontr[ae]r?|determin[ae]r?|afla[țţt]i|calcula[țţt]i|oblicz|wyznacz|znajd[źz]|hesaplay[ıi]n|bulun|ka[çc])\b"
    r"|\b(?:найд|вычисл|определ|реш|скольк|знайд|обчисл|визнач)|求(?![证證証])|计算|計算|구하|多少|几|幾",
    re.I,
)


# Text before a proof word that asks, although no clause begins there: "use induction to prove", "can you show that".
_ASKED = re.compile(
    r"\b(?:us(?:e|ing)|apply|employ)\b[^.?!;]{0,150}\bto $|\bhow (?:to|do|can|could|would)(?: (?:i|we|you|one))? $"
    r"|\b(?:can|could|will|would) (?:you|we|one) $",
    re.I,
)
_JOINS = re.compile(
    r"(?:\b(?:and|or|either|then|hence|thus|also|please|to both|et|und|oder|y|e|i|и)|[试試请請并並且])$", re.I
)


def asks_for_proof(problem: str) -> re.Match[str] | None:
    """The words with which a problem asks for a proof, or None. Takes time linear in the problem."""
    for proof in _PROOF.finditer(problem):
        before = problem[max(0, proof.start() - 200) : proof.start()]
        if _ASKED.search(before) or _begins_clause(before):
            return proof
        if not _REPORTED.search(before[-40:]):
            return None if _asks_value(problem, proof) else proof
    for proof in _MAY_PROVE.finditer(problem):
        before = problem[max(0, proof.start() - 200) : proof.start()]
        if _ASKED.search(before) or _begins_clause(before):
            return None if _asks_value(problem, proof) else proof
    return None


def _asks_value(problem: str, proof: re.Match[str]) -> bool:
    return bool(_ASKS_VALUE.search(problem, 0, proof.start()) or _ASKS_VALUE.search(problem, proof.end()))


def _begins_clause(before: str) -> bool:
    """Whether a word after this text begins a sentence or a clause."""
    bare = before.rstrip(" \t\r\n*_>#-")
    if not bare or "\n" in before[len(bare) :]:
        return True
    return (not bare[-1].isalnum() and bare[-1] not in "'’°") or _JOINS.search(bare) is not None
