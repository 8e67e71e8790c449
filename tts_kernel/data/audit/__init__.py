"""One pass over manifests and a sample of their files: what there is, and everything that is wrong with it."""

from tts_kernel.data.audit.audit import audit
from tts_kernel.data.audit.corpus import Corpus, open_corpus
from tts_kernel.data.audit.kinds import KINDS
from tts_kernel.data.audit.report import Report
from tts_kernel.data.audit.settings import AuditError, AuditSettings

__all__ = ["KINDS", "AuditError", "AuditSettings", "Corpus", "Report", "audit", "open_corpus"]
