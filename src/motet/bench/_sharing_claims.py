"""The claims ledger of the sharing architectures: what papers and released tables say, with the figures we could read.

Most were measured on logs of clicks and purchases, with embeddings of their own and far more rows than here. A claim
whose figures we could not read has none.
"""

from motet.bench._claims import Claim

MULTITAB = "Table of Sinodinos et al., MultiTab, AAAI 2026"
ACS = "ACS Income, income and marital status, Δm in percent against own networks"
HIGGS = "Higgs, a class and seven masses, Δm in percent against own networks"
RELEASED = "README of Multitask-Recommendation-Library"
CLICKS = "AliExpress NL, AUC of clicks; of conversions"
ADATT, ADATT_DATA = "Li et al., AdaTT, KDD 2023", "a public benchmark and a log of recommendations, in groups of tasks"

SHARING_CLAIMS: tuple[Claim, ...] = (
    Claim("mmoe", "hard", (0.7234, 0.7228), f"{CLICKS} 0.8606 against 0.8511", RELEASED),
    Claim("ple", "hard", (0.7292, 0.7228), f"{CLICKS} 0.8591 against 0.8511", RELEASED),
    Claim("ple", "mmoe", (0.7292, 0.7234), f"{CLICKS} 0.8591 against 0.8606", RELEASED),
    Claim("stem", "hard", (0.0571, -0.6531), HIGGS, MULTITAB),
    Claim("stem", "mmoe", (0.0571, -0.3525), HIGGS, MULTITAB),
    Claim("stem", "ple", (0.0571, -0.0314), HIGGS, MULTITAB),
    Claim("multitab-net", "hard", (0.1064, 0.0612), ACS, MULTITAB),
    Claim("multitab-net", "mmoe", (0.1064, 0.0893), ACS, MULTITAB),
    Claim("multitab-net", "ple", (0.1064, 0.0892), ACS, MULTITAB),
    Claim("multitab-net", "stem", (0.1064, 0.0725), ACS, MULTITAB),
    Claim("adatt", "ple", None, ADATT_DATA, ADATT),
    Claim("adatt_sp", "ple", None, ADATT_DATA, ADATT),
    Claim("adatt_sp", "mmoe", None, ADATT_DATA, ADATT),
    Claim("home", "mmoe", None, "logs of a service for short videos", "Wang et al., HoME, 2024"),
    Claim("dselect_k", "mmoe", None, "data of up to 128 tasks", "Hazimeh et al., DSelect-k, NeurIPS 2021"),
)
