# src/pyama_fastapi/tasks/my_task.py
"""My custom task implementation."""

import asyncio
from typing import Any
from pathlib import Path

from .base import BaseTask


class MyCustomTask(BaseTask):
    """
    Description of what your task does.

    Required fields:
        input_file_path: Path to input file
        output_file_path: Path to output file (optional)

    Parameters:
        param1: Description (default: value)
        param2: Description (default: value)
    """

    async def execute(self) -> dict[str, Any]:
        """Execute the task logic."""

        # Access task properties
        input_path = Path(self.input_file_path)
        output_path = Path(self.output_file_path) if self.output_file_path else None
        param1 = self.parameters.get("param1", "default_value")

        # Step 1: Initial work (0-25%)
        await self.update_progress(10, "Starting task")

        # Check for cancellation
        await self.check_cancelled()

        # Do some work...
        result = await self.do_something()

        await self.update_progress(25, "First step complete")

        # Step 2: Main processing (25-75%)
        await self.update_progress(50, "Processing data")

        # Check for cancellation periodically
        if self.is_cancelled():
            return {"cancelled": True}

        # More work...
        processed = await self.process_data(result)

        await self.update_progress(75, "Almost done")

        # Step 3: Finalize (75-100%)
        await self.update_progress(90, "Writing output")

        final_result = await self.save_output(processed, output_path)

        # Return result dictionary
        return {
            "message": "Task completed successfully",
            "input_file": str(input_path),
            "output_file": str(output_path) if output_path else None,
            "items_processed": len(processed),
            "custom_metric": final_result,
        }

    async def do_something(self):
        """Helper method."""
        # Your logic here
        await asyncio.sleep(1)
        return "result"

    async def process_data(self, data):
        """Helper method."""
        # Your logic here
        return [data] * 10

    async def save_output(self, data, path):
        """Helper method."""
        # Your logic here
        return len(data)
