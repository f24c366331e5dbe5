"""Image processing task."""

import asyncio
from pathlib import Path
from typing import Any

from PIL import Image

from .base import BaseTask


class ImageProcessTask(BaseTask):
    """
    Process an image (resize, convert format, etc.).

    Required:
        input_file_path: Path to input image
        output_file_path: Path to output image

    Parameters:
        width: Target width in pixels (default: 800)
        height: Target height in pixels (default: 600)
        format: Output format - JPEG, PNG, etc. (default: "JPEG")
        quality: JPEG quality 1-100 (default: 85)
    """

    async def execute(self) -> dict[str, Any]:
        """Execute image processing."""

        # Validate
        if not self.input_file_path or not self.output_file_path:
            raise ValueError("Both input_file_path and output_file_path required")

        input_path = Path(self.input_file_path)
        output_path = Path(self.output_file_path)

        # Get parameters
        width = self.parameters.get("width", 800)
        height = self.parameters.get("height", 600)
        fmt = self.parameters.get("format", "JPEG")
        quality = self.parameters.get("quality", 85)

        # Step 1: Load image (10%)
        await self.update_progress(10, "Loading image")

        if not input_path.exists():
            raise FileNotFoundError(f"Image not found: {input_path}")

        # Use executor for CPU-bound PIL operations
        loop = asyncio.get_event_loop()
        image = await loop.run_in_executor(None, Image.open, str(input_path))

        original_size = image.size
        self.logger.info(f"Loaded image: {original_size[0]}x{original_size[1]}")

        # Step 2: Resize (50%)
        await self.update_progress(50, f"Resizing to {width}x{height}")
        await self.check_cancelled()

        resized = await loop.run_in_executor(
            None, image.resize, (width, height), Image.Resampling.LANCZOS
        )

        # Step 3: Convert format if needed (75%)
        await self.update_progress(75, f"Converting to {fmt}")
        await self.check_cancelled()

        if fmt == "JPEG" and resized.mode in ("RGBA", "LA", "P"):
            rgb_image = Image.new("RGB", resized.size, (255, 255, 255))
            rgb_image.paste(resized, mask=resized.split()[-1] if resized.mode == "RGBA" else None)
            resized = rgb_image

        # Step 4: Save (90%)
        await self.update_progress(90, "Saving output")

        output_path.parent.mkdir(parents=True, exist_ok=True)

        save_kwargs = {"format": fmt}
        if fmt == "JPEG":
            save_kwargs["quality"] = quality
            save_kwargs["optimize"] = True

        await loop.run_in_executor(None, resized.save, str(output_path), **save_kwargs)

        self.logger.info(f"Saved image to: {output_path}")

        # Return result
        return {
            "message": "Image processed successfully",
            "input_file": str(input_path),
            "output_file": str(output_path),
            "original_size": original_size,
            "new_size": (width, height),
            "format": fmt,
            "file_size_bytes": output_path.stat().st_size,
        }
