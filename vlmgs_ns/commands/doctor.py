"""``vlmgs doctor``: what this machine has, and what our methods use on it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass
class Doctor:
    """Say what this machine has, what is used therefore, and how to add what is missing."""

    json: bool = False
    """Print one JSON object instead."""

    def run(self) -> None:
        """Look, and print."""
        from vlmgs_ns.system.console import kept_for_answer

        with kept_for_answer() as answer:
            from vlmgs_ns.method.diagnosis import diagnose

            diagnosis = diagnose()
            if self.json:
                answer(json.dumps(asdict(diagnosis), indent=2))
                return
            width = max(len(finding.name) for finding in diagnosis.findings)
            for finding in diagnosis.findings:
                answer(f"{finding.name:{width}}  {finding.found or f'none (for {finding.matters})'}")
            answer("\nUsed here\n" + "\n".join(f"- {choice}" for choice in diagnosis.choices))
            remedies = [
                f"- {finding.name}, for {finding.matters}: {finding.remedy}" for finding in diagnosis.findings if finding.remedy
            ]
            if remedies:
                answer("\nTo add what is missing\n" + "\n".join(remedies))
