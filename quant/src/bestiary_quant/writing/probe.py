"""Texts on which tokenizers that are not the same are very likely to differ."""

# fmt: off
PROBES = (
    "Hello, world! It's 12345 o'clock; we'll see what they've DONE, won't we?",
    "  two  spaces,   three\n\n\nlines\t\ttabs \r\n and trailing   \n ",
    "3.14159 1,000,000 x2 a1b2c3 ²½ ٣٤٥ 0x1F4A9 2024-07-31T12:00:00Z",
    "naïve café e\u0301lan Ångström İstanbul Straße ﬁne ΑΒΓδε Привет, мир! שלום",
    "日本語のテキスト、中文文本。한국어 문장 ไทย हिन्दी کتاب",
    "😀👩\u200d👧🇩🇪 🚀 (emoji) ✅ \u200b\u00a0\u3000\u2028 end",
    "def f(x: int) -> str:\n    return f\"{x!r}\"  # comment_with_under_scores\n\tif x == 0 && y != 1 {}",
    "CamelCaseWord SHOUTING mixedCASE don'T I'LL He'S <tag attr=\"v\">&amp;</tag> http://example.org/a?b=c#d",
    "'''''' ``` \"\"\" ...... !!!??? ---- ==== //// \\\\ $$$ ^^ ~~ |||",
    "ünïcödé\u0300\u0301 ｆｕｌｌ ｗｉｄｔｈ！ “quotes” ‘single’ – — …",
)
# fmt: on
